"""Calls of torch modules: bind their arguments to the names in ``forward``."""

from __future__ import annotations

import inspect
import itertools
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from mlxport.converter.arguments import argument
from mlxport.converter.errors import OptionsError
from mlxport.converter.torch_model.encoder_padding import padding_zeroed

_logger = logging.getLogger(__name__)

# positional and keyword arguments of a call
CallArguments = tuple[tuple[Any, ...], dict[str, Any]]


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


def check_arguments(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Refuse a call that ``forward`` cannot be made with.

    Raises:
        OptionsError: an argument is missing, unknown or too much.
    """
    try:
        inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise OptionsError(
            f"{argument('example_inputs')}: {type(module).__name__}.forward() {error}"
        ) from error
    except ValueError as error:  # it hides its signature
        _logger.debug("%s: %s", type(module).__name__, error)


def spread_arguments(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by name, what ``*args`` and ``**kwargs`` take spread out.

    In the order of ``forward``, which is that of their tensors in the call `in_order` gives.
    """
    parameters = parameters_of(module)
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
) -> CallArguments:
    """Return a call with its keyword arguments in the order of ``forward``."""
    given = dict(kwargs or {})
    known = {name: given.pop(name) for name in parameters_of(module) if name in given}
    return tuple(args), known | given


def keyword_only(module: torch.nn.Module, names: Collection[str]) -> tuple[str, ...]:
    """Return which arguments a function of these alone has to take by name.

    Those ``forward`` takes by name only, and those that would stand in another place than in
    ``forward`` because one before them is missing.

    Args:
        module: the module.
        names: some of its arguments, as `spread_arguments` names them.
    """
    positions: list[str] = []
    for name, parameter in parameters_of(module).items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            last = max((int(n.rpartition("_")[2]) for n in names if _is_item(n, name)), default=-1)
            positions += [f"{name}_{i}" for i in range(last + 1)]
        elif parameter.kind not in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            positions.append(name)
    placed = set(itertools.takewhile(names.__contains__, positions))
    return tuple(name for name in names if name not in placed) if parameters_of(module) else ()


def _is_item(name: str, parameter: str) -> bool:
    return re.fullmatch(rf"{parameter}_\d+", name) is not None


def parameters_of(module: torch.nn.Module) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of ``forward``; none where it hides its signature."""
    try:
        return inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return {}


@contextmanager
def every_module_called() -> Iterator[None]:
    """Keep attention layers from a fused path that bypasses the modules inside them.

    What that path does to padding encoders then do op by op, unless the user switched it off.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with padding_zeroed() if enabled else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
