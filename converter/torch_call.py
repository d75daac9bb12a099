"""A call of a torch module: its arguments by name, in the order of ``forward``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def bound_arguments(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by the names of ``forward``, in its order.

    Keyword arguments may come in any order; what two calls mean the same by must read the same.
    A forward that hides its signature gives the arguments as they came.
    """
    try:
        return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        return {f"x{i}": value for i, value in enumerate((*args, *kwargs.values()))}
