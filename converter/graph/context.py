"""What an op handler sees of the lowering: emit expressions, choose axis orders, refuse."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from mlxport.converter.errors import ConversionError
from mlxport.converter.graph.code import call, expression
from mlxport.converter.graph.own_files import NotPortable, OwnFile, is_ours, own_file
from mlxport.converter.graph.value import (
    Order,
    Scalar,
    Value,
    channels_last,
    identity,
    permutation,
)

Nesting: TypeAlias = "str | tuple[Nesting, ...]"


class Unsupported(ConversionError):
    """A handler cannot serve these arguments; the message says why, in one line."""


@dataclass
class Statement:
    """``targets = code``: one or more values computed by one expression.

    Attributes:
        targets: the values it gives; several where the expression gives a tuple.
        code: the expression.
        module: qualified name of the module it calls, None if it calls none.
        nesting: how the tuple is nested, with a string for every value; None where it is flat.
    """

    targets: tuple[Value, ...]
    code: ast.expr
    module: str | None = None
    nesting: Nesting | None = None


@dataclass
class Context:
    """The body being written and the node being lowered.

    Attributes:
        statements: the body so far.
        imports: name of a function or class -> the file of ``layers/`` it comes from.
        own: file of the user's own in ``layers/`` -> what it holds.
        demands: origin of an input or parameter -> the orders that consumers asked it in.
        results: what PyTorch says the node gives, as ``(shape, dtype)`` of every tensor.
        name: what to call the node's result where it needs a name of its own.
        node: the node itself, for what its values do not tell: strides, and which results are read.
        arranged: transposes already made in this body, by value and order.
        sliced: slice of another value -> that value and the index of each of its stored axes.
        updated: array with a slice replaced -> how it came about (see ``ops/writing.py``).
        expanded: value with new axes of length one -> the one without, and where they are stored.
    """

    statements: list[Statement] = field(default_factory=list)
    imports: dict[str, str] = field(default_factory=dict)
    demands: dict[str, list[Order]] = field(default_factory=dict)
    results: tuple[tuple[tuple[Any, ...], torch.dtype], ...] = ()
    name: str = "x"
    node: Any = None
    arranged: dict[tuple[str, Order, Order], Value] = field(default_factory=dict)
    sliced: dict[str, tuple[Value, tuple[Any, ...]]] = field(default_factory=dict)
    updated: dict[str, Any] = field(default_factory=dict)
    expanded: dict[str, tuple[Value, tuple[int, ...]]] = field(default_factory=dict)
    own: dict[str, OwnFile] = field(default_factory=dict)

    # -- results ---------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[Any, ...]:
        """Logical shape of the node's (first) result."""
        return self.results[0][0]

    @property
    def dtype(self) -> torch.dtype:
        """Torch dtype of the node's (first) result."""
        return self.results[0][1]

    # -- emitting --------------------------------------------------------------------------------

    def emit(self, template: str, /, *, order: Order | None = None, **operands: Any) -> Value:
        """Emit an expression that gives the node's result.

        Args:
            template: a line of Python in which names stand for the operands.
            order: axis order of the result as stored; PyTorch's own if not given.
            **operands: values, numbers, strings, tuples and lists of them, or ``OMIT``.
        """
        shape, dtype = self.results[0]
        return self.compute(expression(template, operands), shape, dtype, order)

    def call(self, function: str, /, *args: Any, order: Order | None = None, **kw: Any) -> Value:
        """Emit a call of ``mx.…`` or ``nn.…`` that gives the node's result."""
        return self.compute(call(function, *args, **kw), *self.results[0], order)

    def layer_function(
        self, file: str, function: str, /, *args: Any, order: Order | None = None, **kw: Any
    ) -> Value:
        """Emit a call of a function of ``mlxport.layers.<file>`` that gives the node's result."""
        self.imports[function] = file
        return self.call(function, *args, order=order, **kw)

    def function(
        self, function: Callable[..., Any], /, *args: Any, order: Order | None = None, **kw: Any
    ) -> Value:
        """Emit a call of a function that gives the node's result.

        Args:
            function: a function of ``mlxport.layers`` or of a file of the user's own, which then
                travels with the converted model.
            *args: values, numbers, strings, tuples and lists of them.
            order: axis order of the result as stored; PyTorch's own if not given.
            **kw: the same, as keyword arguments; ``OMIT`` leaves one out.

        Raises:
            Unsupported: the function's file cannot travel.
        """
        self.bring(function)
        return self.call(function.__name__, *args, order=order, **kw)

    def bring(self, target: Callable[..., Any]) -> None:
        """Import a class or function into ``model.py``, with its file beside it.

        Raises:
            Unsupported: its file cannot travel, or its name stands for another one already.
        """
        name, file = target.__name__, target.__module__.rpartition(".")[2]
        if not is_ours(target):
            try:
                found = own_file(target)
            except NotPortable as reason:
                raise Unsupported(str(reason)) from reason
            file = found.name
            if self.own.setdefault(file, found) != found:
                raise Unsupported(f"two files called {file}.py would travel: rename one")
        if self.imports.setdefault(name, file) != file:
            raise Unsupported(
                f"{name} would come from layers/{self.imports[name]}.py and layers/{file}.py: "
                "rename one"
            )

    def emit_many(
        self, template: str, /, *, orders: Sequence[Order], **operands: Any
    ) -> tuple[Value, ...]:
        """Emit one expression that gives a tuple: all of the node's results."""
        values = tuple(
            Value(shape, dtype, order, f"{self.name}_{i}")
            for i, ((shape, dtype), order) in enumerate(zip(self.results, orders, strict=True))
        )
        self.statements.append(Statement(values, expression(template, operands)))
        return values

    def compute(
        self,
        code: ast.expr,
        shape: Sequence[Any],
        dtype: torch.dtype,
        order: Order | None = None,
        origin: str | None = None,
    ) -> Value:
        """Append a statement and return the value it gives (for intermediate results)."""
        shape = tuple(shape)
        value = Value(
            shape, dtype, identity(len(shape)) if order is None else order, self.name, origin
        )
        self.statements.append(Statement((value,), code))
        return value

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
        """Emit an intermediate result that resembles ``like`` except where told otherwise."""
        return self.compute(
            expression(template, operands),
            like.shape if shape is None else shape,
            like.dtype if dtype is None else dtype,
            (like.order if shape is None else None) if order is None else order,
        )

    # -- axis orders -----------------------------------------------------------------------------

    def arrange(self, value: Value, order: Order) -> Value:
        """Return the value stored in the given order, transposing only where that is needed."""
        if value.order == order:
            return value
        if value.origin is not None:
            self.demands.setdefault(value.origin, []).append(order)
        key = (value.id, value.order, order)
        if key not in self.arranged:
            axes = permutation(value.order, order)
            code = ast.Call(
                ast.Attribute(value.to_ast(), "transpose"), [ast.Constant(a) for a in axes], []
            )
            name, self.name = self.name, value.name
            self.arranged[key] = self.compute(code, value.shape, value.dtype, order)
            self.name = name
        return self.arranged[key]

    def logical(self, value: Value) -> Value:
        """Return the value stored in PyTorch's own order."""
        return self.arrange(value, identity(value.ndim))

    def channels_last(self, value: Value, rank: int | None = None) -> Value:
        """Return the value stored channels-last.

        Args:
            value: ``(N, C, *S)``, or ``(C, *S)`` where ``rank`` is given and says so.
            rank: number of spatial axes.
        """
        channel = 1 if rank is None else value.ndim - rank - 1
        return self.arrange(value, channels_last(value.ndim, channel))

    def last(self, value: Value, dims: int = 1) -> Value:
        """Return the value with its last ``dims`` logical axes stored last, in sequence."""
        tail = identity(value.ndim)[value.ndim - dims :]
        if value.order[value.ndim - dims :] == tail:
            return value
        return self.arrange(value, (*(a for a in value.order if a not in tail), *tail))

    def refuse(self, reason: str) -> Unsupported:
        """Return the exception that says why this node cannot be lowered (raise it)."""
        return Unsupported(reason)


Result = Value | Scalar | tuple[Any, ...] | list[Any] | int | float | bool | None
Handler = Callable[..., Result]
