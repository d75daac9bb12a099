"""What the author of a handler may rely on of the lowering context; ``docs/extending.md`` shows it.

mlxport's own handlers use more of `Context`, which may change from release to release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from mlxport.converter.errors import ConversionError
from mlxport.converter.graph.ir.value import Order, Scalar, Value

Result = Value | Scalar | tuple[Any, ...] | list[Any] | int | float | bool | None
Handler = Callable[..., Result]


class HandlerContext(Protocol):
    """The op being lowered: emit expressions, ask for axis orders, refuse."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """Logical shape of the op's (first) result."""

    @property
    def dtype(self) -> torch.dtype:
        """Torch dtype of the op's (first) result."""

    def function(
        self, function: Callable[..., Any], /, *args: Any, order: Order | None = None, **kw: Any
    ) -> Value:
        """Emit a call of a function of ``mlxport.layers`` or of the user's own: the op's result.

        Args:
            function: the function; its file travels with the converted model.
            *args: values, numbers, strings, tuples and lists of them.
            order: axis order of the result as stored; PyTorch's own if not given.
            **kw: the same, as keyword arguments.

        Raises:
            Unsupported: the function's file cannot travel.
        """

    def call(self, function: str, /, *args: Any, order: Order | None = None, **kw: Any) -> Value:
        """Emit a call of a function of MLX (``"mx.sin"``) that gives the op's result."""

    def emit(self, template: str, /, *, order: Order | None = None, **operands: Any) -> Value:
        """Emit an expression that gives the op's result.

        Args:
            template: a line of Python in which names stand for the operands.
            order: axis order of the result as stored; PyTorch's own if not given.
            **operands: values, numbers, strings, tuples and lists of them.
        """

    def step(
        self,
        template: str,
        like: Value,
        /,
        *,
        shape: Sequence[Any] | None = None,
        dtype: torch.dtype | None = None,
        order: Order | None = None,
        **operands: Any,
    ) -> Value:
        """Emit an intermediate result that resembles ``like`` except where something is given."""

    def emit_many(
        self, template: str, /, *, orders: Sequence[Order], **operands: Any
    ) -> tuple[Value, ...]:
        """Emit one expression that gives a tuple: all of the op's results."""

    def logical(self, value: Value) -> Value:
        """Return a value stored in PyTorch's own order."""

    def channels_last(self, value: Value, rank: int | None = None) -> Value:
        """Return a value stored channels-last.

        Args:
            value: ``(N, C, *S)``, or ``(C, *S)`` where ``rank`` is given and says so.
            rank: number of spatial axes.
        """

    def last(self, value: Value, dims: int = 1) -> Value:
        """Return a value with its last ``dims`` logical axes stored last, in sequence."""

    def refuse(self, reason: str) -> ConversionError:
        """Return the exception that says why this op cannot be lowered (raise it)."""
