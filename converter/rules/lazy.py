"""Rule for uninitialised lazy layers: refuse them.

Their first forward pass turns them into the plain class, which has its rule.
"""

from __future__ import annotations

from typing import NoReturn

import torch

from mlxport.converter.rules.registry import Refusal, rule


@rule(
    torch.nn.LazyLinear,
    torch.nn.LazyConv1d,
    torch.nn.LazyConv2d,
    torch.nn.LazyConv3d,
    torch.nn.LazyConvTranspose1d,
    torch.nn.LazyConvTranspose2d,
    torch.nn.LazyConvTranspose3d,
    torch.nn.LazyBatchNorm1d,
    torch.nn.LazyBatchNorm2d,
    torch.nn.LazyBatchNorm3d,
    torch.nn.LazyInstanceNorm1d,
    torch.nn.LazyInstanceNorm2d,
    torch.nn.LazyInstanceNorm3d,
    target="that of the plain class",
    restrictions="run the model once first, so that shapes are known",
    leaf=False,
)
def lazy(module: torch.nn.Module) -> NoReturn:
    """Refuse: it has no shapes yet."""
    raise Refusal("it is uninitialised: run the model once, so that its shapes are known")
