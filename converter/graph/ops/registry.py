"""The registry of handlers: what stands in MLX for an ATen op.

A handler is called with the lowering context and the node's arguments, values in place of nodes,
and returns the value(s) the node gives. The same registry answers "is this op supported?".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mlxport.converter.graph.ir.context import Handler

H = TypeVar("H", bound=Handler)


@dataclass(frozen=True)
class Op:
    """A handler as it stands in the registry and in the support table.

    Attributes:
        name: the op's qualified overload (``"aten.cat.default"``).
        handler: the function that lowers it.
        restrictions: what is not supported; empty when nothing.
    """

    name: str
    handler: Handler
    restrictions: str = ""


OPS: dict[str, Op] = {}


def op(*names: str, restrictions: str = "") -> Callable[[H], H]:
    """Register a function as the handler of one or more ATen op overloads.

    Raises:
        ValueError: an op has a handler already.
    """

    def register(handler: H) -> H:
        for name in names:
            enter(Op(name, handler, restrictions))
        return handler

    return register


def enter(new: Op, *, override: bool = False) -> None:
    """Enter a handler in the registry.

    Raises:
        ValueError: its op has a handler already, and ``override`` is not set.
    """
    if new.name in OPS and not override:
        raise ValueError(
            f"{new.name} already has a handler: {OPS[new.name].handler}. To replace it, pass "
            "override=True."
        )
    OPS[new.name] = new
