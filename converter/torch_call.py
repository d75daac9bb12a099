"""Calls of torch modules: their arguments by name, and all of them made."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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


def spread_arguments(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by name, what ``*args`` and ``**kwargs`` take spread out.

    In the order of ``forward``, which is that of their tensors in the call `in_order` gives.
    """
    try:
        parameters = inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        parameters = {}
    spread: dict[str, Any] = {}
    for name, value in bound_arguments(module, args, kwargs).items():
        kind = parameters[name].kind if name in parameters else None
        if kind is inspect.Parameter.VAR_POSITIONAL:
            spread |= {f"{name}_{i}": item for i, item in enumerate(value)}
        elif kind is inspect.Parameter.VAR_KEYWORD:
            spread |= value
        else:
            spread[name] = value
    return spread


def in_order(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a call with its keyword arguments in the order of ``forward``."""
    given = dict(kwargs or {})
    try:
        order = list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        order = []
    known = {name: given.pop(name) for name in order if name in given}
    return tuple(args), known | given


@contextmanager
def every_module_called() -> Iterator[None]:
    """Keep attention layers from a fused path that bypasses the modules inside them."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
