"""The registry of op handlers: ATen op -> the function that lowers it.

A handler is called with the lowering context and the node's arguments, values in place of nodes,
and returns the value(s) the node gives. The same registry answers "is this op supported?".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mlxport.converter.graph.ir.handler_context import Handler

_H = TypeVar("_H", bound=Handler)


@dataclass(frozen=True)
class Op:
    """A handler with the op it lowers, for the registry and the support table.

    Attributes:
        name: the op's qualified overload (``"aten.cat.default"``).
        handler: the function that lowers it.
        restrictions: what is not supported; empty when nothing.
    """

    name: str
    handler: Handler
    restrictions: str = ""


OPS: dict[str, Op] = {}


def op(*names: str, restrictions: str = "") -> Callable[[_H], _H]:
    """Register a function as the handler of one or more ATen op overloads.

    Raises:
        ValueError: an op has a handler already.
    """

    def register(handler: _H) -> _H:
        for name in names:
            register_handler(Op(name, handler, restrictions))
        return handler

    return register


def register_handler(new: Op, *, override: bool = False) -> None:
    """Add a handler to the registry.

    Raises:
        ValueError: its op has a handler already, and ``override`` is not set.
    """
    if new.name in OPS and not override:
        raise ValueError(
            f"{new.name} already has a handler: {OPS[new.name].handler}. To replace it, pass "
            "override=True."
        )
    OPS[new.name] = new
