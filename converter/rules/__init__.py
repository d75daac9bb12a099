"""Layer rules: a torch.nn class to its MLX layer and the plan of its tensors.

Importing this package fills the registry: every file that registers rules is named here.
"""

from mlxport.converter.rules import (
    activation,
    attention,
    convolution,
    dropout,
    embedding,
    lazy,
    linear,
    normalization,
    padding,
    pooling,
    recurrent,
    resampling,
    shape,
    transformer,
)

__all__ = [
    "activation",
    "attention",
    "convolution",
    "dropout",
    "embedding",
    "lazy",
    "linear",
    "normalization",
    "padding",
    "pooling",
    "recurrent",
    "resampling",
    "shape",
    "transformer",
]
