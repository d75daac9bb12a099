"""Copies of a torch model and of what it is given, so that both stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map

from mlxport.converter.errors import ParityError


def copied(module: torch.nn.Module, known: Mapping[int, Any] | None = None) -> torch.nn.Module:
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


def cloned(value: Any) -> Any:
    """Return nested containers with a copy of every tensor, outside of any graph of gradients."""
    return tree_map(lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v, value)
