"""Op handlers: an ATen op to the MLX expression that computes it.

Importing this package fills the registry: every file that registers handlers is named here.
"""

from mlxport.converter.graph.ops import (
    activation,
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
    recurrent,
    reduction,
    resampling,
    shape,
    shuffle,
    slicing,
    sorting,
    view,
)

__all__ = [
    "activation",
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
    "recurrent",
    "reduction",
    "resampling",
    "shape",
    "shuffle",
    "slicing",
    "sorting",
    "view",
]
