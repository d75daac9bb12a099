"""Op handlers: an ATen op to the MLX expression that computes it.

Importing this package fills the registry: every file that registers handlers is named here.
"""

from mlxport.converter.graph.ops import (
    attention,
    comparison,
    conversion,
    convolution,
    creation,
    dropout,
    embedding,
    indexing,
    matmul,
    normalization,
    padding,
    pointwise,
    pooling,
    reduction,
    resampling,
    shape,
    slicing,
    view,
)

__all__ = [
    "attention",
    "comparison",
    "conversion",
    "convolution",
    "creation",
    "dropout",
    "embedding",
    "indexing",
    "matmul",
    "normalization",
    "padding",
    "pointwise",
    "pooling",
    "reduction",
    "resampling",
    "shape",
    "slicing",
    "view",
]
