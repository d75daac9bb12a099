"""Op handlers: an ATen op to the MLX expression that computes it.

Importing this package fills the registry: every file that registers handlers is named here.
"""

from mlxport.converter.graph.ops import (
    attention,
    convolution,
    dropout,
    embedding,
    matmul,
    normalization,
    pointwise,
)

__all__ = [
    "attention",
    "convolution",
    "dropout",
    "embedding",
    "matmul",
    "normalization",
    "pointwise",
]
