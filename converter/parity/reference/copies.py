"""Copy the arguments of a torch model, or move them and its parameters by a few roundings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_map

from mlxport.converter.torch_model.model_state import left_as_it_was

JITTER_ROUNDINGS = 4  # twice what MLX's forward pass loses


def jittered(value: Any, generator: torch.Generator) -> Any:
    """Return a floating tensor moved by a few roundings; anything else as it is."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    noise = torch.rand(value.shape, generator=generator, dtype=torch.float64) * 2 - 1
    step = JITTER_ROUNDINGS * torch.finfo(value.dtype).eps / 2
    return (value.detach().double() * (1 + step * noise.to(value.device))).to(value.dtype)


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
