"""Layer rules: a torch.nn class to its MLX layer and the plan of its tensors.

Importing this package fills the registry: every file that registers rules is named here.
"""

from mlxport.converter.rules import (
    activation,
    attention,
    containers,
    convolution,
    distance,
    dropout,
    embedding,
    lazy,
    linear,
    loss,
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
    "containers",
    "convolution",
    "distance",
    "dropout",
    "embedding",
    "lazy",
    "linear",
    "loss",
    "normalization",
    "padding",
    "pooling",
    "recurrent",
    "resampling",
    "shape",
    "transformer",
]
