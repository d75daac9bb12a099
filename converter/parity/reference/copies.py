"""Copy the arguments of a torch model, or move them and its parameters by a few roundings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_map

from mlxport.converter.torch_model.model_state import left_as_it_was

JITTER_ROUNDINGS = 4  # twice what MLX's forward pass loses

_BLOCK = 2**15  # values moved at a time, so that what is between them and the noise stays in cache


def jittered(value: Any, generator: torch.Generator) -> Any:
    """Return a floating tensor moved by a few roundings; anything else as it is."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    step = JITTER_ROUNDINGS * torch.finfo(value.dtype).eps / 2
    if value.layout is not torch.strided:
        noise = torch.rand(value.shape, generator=generator, dtype=torch.float64) * 2 - 1
        return (value.detach().double() * (1 + step * noise.to(value.device))).to(value.dtype)
    moved = value.detach().clone()
    flat = moved.as_strided((moved.numel(),), (1,))  # a clone is dense, in any order of axes
    drawn = torch.empty(_BLOCK // 8, dtype=torch.int64)
    room = torch.empty(_BLOCK, dtype=torch.float64)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        # a byte for each value: more steps than these few roundings have values
        steps = drawn.random_(-(2**63), None, generator=generator).view(torch.int8)
        factors = room[: len(block)].copy_(steps[: len(block)])
        factors.mul_(step / 127.5).add_(1 + step / 255)
        block.copy_(factors.to(block.device).mul_(block.double()))
    return moved


@contextmanager
def perturbed(module: torch.nn.Module, given: Any, number: int) -> Iterator[Any]:
    """Let a model have its parameters moved by a few roundings for a while.

    Args:
        module: the model.
        given: its arguments, nested.
        number: which of several such runs; seeds the noise.

    Yields:
        The arguments, moved too.
    """
    generator = torch.Generator().manual_seed(number)
    with left_as_it_was(module):
        for parameter in module.parameters():
            parameter.data = jittered(parameter.data, generator)
        yield tree_map(lambda leaf: jittered(leaf, generator), given)


def detached_clones(value: Any) -> Any:
    """Return nested containers with a copy of every tensor, detached from autograd."""
    return tree_map(lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v, value)
