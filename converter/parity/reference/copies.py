"""Copy a torch model and its arguments, exactly or with a few roundings of noise added.

Runs that may leave traces are made on copies: the model belongs to the user.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map

from mlxport.converter.errors import ParityError

JITTER_ROUNDINGS = 4  # twice what MLX's forward pass loses


def eval_copy(module: torch.nn.Module, known: Mapping[int, Any] | None = None) -> torch.nn.Module:
    """Return a copy of a model, in eval mode.

    Args:
        module: the model.
        known: the copies of some of its tensors, by their ``id``.

    Raises:
        ParityError: it cannot be copied.
    """
    # deepcopy refuses computed tensors, such as the weight that old-style weight norm recomputes
    computed: dict[int, Any] = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(module, computed | dict(known or {})).eval()
    except Exception as error:  # deepcopy runs the classes' own code
        raise ParityError(
            f"{type(module).__name__} cannot be copied ({type(error).__name__}: {error}). Parity "
            "runs a copy, so that the model itself stays as it is; give it a __deepcopy__."
        ) from error


def jittered(value: Any, generator: torch.Generator) -> Any:
    """Return a floating tensor moved by a few roundings; anything else as it is."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    noise = torch.rand(value.shape, generator=generator, dtype=torch.float64) * 2 - 1
    step = JITTER_ROUNDINGS * torch.finfo(value.dtype).eps / 2
    return (value.detach().double() * (1 + step * noise.to(value.device))).to(value.dtype)


def perturbed_copy(module: torch.nn.Module, given: Any, number: int) -> tuple[torch.nn.Module, Any]:
    """Return a copy of a model and its arguments, inputs and parameters moved by a few roundings.

    Args:
        module: the model.
        given: its arguments, nested.
        number: which of several such copies; seeds the noise.

    Raises:
        ParityError: the model cannot be copied.
    """
    generator = torch.Generator().manual_seed(number)
    moved = eval_copy(module)
    for parameter in moved.parameters():
        parameter.data = jittered(parameter.data, generator)
    return moved, tree_map(lambda leaf: jittered(leaf, generator), given)


def detached_clones(value: Any) -> Any:
    """Return nested containers with a copy of every tensor, detached from autograd."""
    return tree_map(lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v, value)
