"""Find the globals and caches that a model's own code may fill, by the names it reads."""

from __future__ import annotations

import dis
import functools
import inspect
import logging
import sys
import types
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_logger = logging.getLogger(__name__)

CachedFunction = functools._lru_cache_wrapper
_STORE = dis.opmap["STORE_GLOBAL"]
_FOREIGN = {"torch", "numpy", "mlx", "sympy", *sys.stdlib_module_names} - {"__main__"}


def is_foreign(module: str | None) -> bool:
    """Whether code of a Python module belongs to no model: torch's, the standard library's, ours.

    Distributions are torch's, and have tensors; so they are none of these.
    """
    name = module or ""
    if name.startswith(("torch.distributions", "collections")):
        return False
    return name.partition(".")[0] in _FOREIGN or name.startswith("mlxport.converter.")


@dataclass(frozen=True, eq=False)
class GlobalNames:
    """The global variables that one function assigns.

    Attributes:
        variables: the globals of its module.
        names: of those it assigns.
    """

    variables: dict[str, Any]
    names: tuple[str, ...]


class ReachableCode:
    """Walks through functions by the names they read, each function once."""

    def __init__(self) -> None:
        self._done: set[int] = set()

    def of_class(self, cls: type) -> Iterator[Any]:
        """Yield what ``forward`` of a class, and all it calls by name, may fill."""
        for name in ("forward", "__call__"):
            yield from self._of_attribute(cls, name)

    def of_function(self, function: types.FunctionType, cls: type | None = None) -> Iterator[Any]:
        """Yield caches, containers, arrays and global variables a function may fill.

        Args:
            function: where to begin.
            cls: whose method it is.
        """
        waiting = [(function, cls)]
        while waiting:
            function, cls = waiting.pop()
            code = function.__code__
            if id(code) in self._done or is_foreign(function.__module__):
                continue
            self._done.add(id(code))
            variables = function.__globals__
            if stored := tuple(dict.fromkeys(_stored(code))):
                yield GlobalNames(variables, stored)
            names = dict.fromkeys(_names(code))
            found: list[tuple[Any, type | None]] = [(variables.get(name), None) for name in names]
            found += [(inspect.getattr_static(cls, name, None), cls) for name in names if cls]
            found += [(value, cls) for value in _enclosed(function)]
            for value, owner in found:
                value = _function_of(value)
                if isinstance(value, (CachedFunction, *_FILLED)):
                    yield value
                if isinstance(value, CachedFunction):
                    value = value.__wrapped__
                if isinstance(value, types.FunctionType):
                    waiting.append((value, owner))

    def _of_attribute(self, cls: type, name: str) -> Iterator[Any]:
        function = _function_of(inspect.getattr_static(cls, name, None))
        if isinstance(function, types.FunctionType):
            yield from self.of_function(function, cls)


_FILLED = (list, dict, set, deque, torch.Tensor, np.ndarray)


def _function_of(value: Any) -> Any:
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    return value.fget if isinstance(value, property) else value


def _enclosed(function: types.FunctionType) -> Iterator[Any]:
    """Yield the variables of a function's closure: what a decorator keeps, and what it wraps."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError as error:  # not assigned yet
            _logger.debug("a variable of %s: %s", function.__qualname__, error)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _names(code: types.CodeType) -> Iterator[str]:
    for inner in _codes(code):
        yield from inner.co_names


def _stored(code: types.CodeType) -> Iterator[str]:
    for inner in _codes(code):
        if _STORE in inner.co_code[::2]:
            for instruction in dis.get_instructions(inner):
                if instruction.opname == "STORE_GLOBAL":
                    yield str(instruction.argval)
