"""Layer rules: how a torch module becomes an MLX layer, one file per family of torch.nn.

Importing this package fills the registry (``registry.py``, where a newcomer starts): every file
that registers rules is imported here. ``libraries/`` has the rules for layers of other libraries.
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
    libraries,
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
    "libraries",
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
