"""The lowering context: how handlers emit expressions, ask for axis orders and refuse."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mlxport.converter.errors import ConversionError
from mlxport.converter.graph.ir.code import call, expression
from mlxport.converter.graph.ir.provenance import Provenance, ProvenanceKind
from mlxport.converter.graph.ir.scopes import BodyScope, ModelScope, NodeResults, NodeScope
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.transposes import transposed
from mlxport.converter.graph.ir.user_files import NotPortable, is_ours, user_file_of
from mlxport.converter.graph.ir.value import Order, Value, channels_last, logical_order


class Unsupported(ConversionError):
    """A handler cannot serve these arguments; the message says why, in one line."""


@dataclass(frozen=True)
class Context:
    """The node being lowered, with the body and the model it is in.

    Handlers of the user's see the part of it that is `HandlerContext`.

    Attributes:
        model: what the pass over the model gathers.
        body: the body that gains statements.
        node: the node.
    """

    model: ModelScope = field(default_factory=ModelScope)
    body: BodyScope = field(default_factory=BodyScope)
    node: NodeScope = field(default_factory=NodeScope)

    @property
    def statements(self) -> list[Statement]:
        """The body so far."""
        return self.body.statements

    # -- results ---------------------------------------------------------------------------------

    @property
    def results(self) -> NodeResults:
        """What PyTorch says the node gives, as ``(shape, dtype)`` of every tensor."""
        return self.node.results

    @property
    def name(self) -> str:
        """What to call the node's result where it needs a name of its own."""
        return self.node.name

    def giving(self, results: NodeResults) -> Context:
        """Return the context of the same node as if it gave these results alone."""
        return replace(self, node=replace(self.node, results=results))

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
        return self.compute(self.calling(function, *args, **kw), *self.results[0], order)

    def function_many(
        self, function: Callable[..., Any], /, *args: Any, orders: Sequence[Order], **kw: Any
    ) -> tuple[Value, ...]:
        """Emit a call of a function that gives a tuple: all of the node's results.

        Args:
            function: as `function` takes it, and its arguments.
            *args: the same.
            orders: axis order of each result as stored.
            **kw: the same.

        Raises:
            Unsupported: the function's file cannot travel.
        """
        return self.emit_many("call", orders=orders, call=self.calling(function, *args, **kw))

    def function_step(
        self,
        function: Callable[..., Any],
        like: Value,
        /,
        *args: Any,
        shape: Sequence[Any] | None = None,
        dtype: torch.dtype | None = None,
        order: Order | None = None,
        **kw: Any,
    ) -> Value:
        """Emit a call of a function that gives an intermediate result.

        Args:
            function: as `function` takes it, and its arguments.
            like: the value that the result resembles, except where ``shape``, ``dtype`` or
                ``order`` say otherwise.
            *args: the same.
            shape: logical shape of the result.
            dtype: its dtype.
            order: its axis order as stored.
            **kw: the same.

        Raises:
            Unsupported: the function's file cannot travel.
        """
        code = self.calling(function, *args, **kw)
        return self.step("call", like, shape=shape, dtype=dtype, order=order, call=code)

    def calling(self, function: Callable[..., Any] | str, /, *args: Any, **kw: Any) -> ast.Call:
        """Return a call as an expression, to put into a larger one; a function is imported.

        Args:
            function: as `function` takes it, or the name of one of MLX's (``"mx.sum"``).
            *args: values, numbers, strings, tuples and lists of them.
            **kw: the same, as keyword arguments; ``OMIT`` leaves one out.

        Raises:
            Unsupported: the function's file cannot travel.
        """
        if isinstance(function, str):
            return call(function, *args, **kw)
        self.bring(function)
        return call(function.__name__, *args, **kw)

    def bring(self, target: Callable[..., Any]) -> None:
        """Import a class or function into ``model.py``, with its file beside it.

        Raises:
            Unsupported: its file cannot travel, or its name stands for another one already.
        """
        name, file = target.__name__, target.__module__.removeprefix("mlxport.layers.")
        if not is_ours(target):
            try:
                found = user_file_of(target)
            except NotPortable as reason:
                raise Unsupported(str(reason)) from reason
            file = found.name
            if self.model.user_files.setdefault(file, found) != found:
                raise Unsupported(f"two files called {file}.py would travel: rename one")
            alike = [name for name in self.model.user_files if name.casefold() == file.casefold()]
            if len(alike) > 1:
                raise Unsupported(
                    f"{' and '.join(f'{name}.py' for name in alike)} would travel, which are one "
                    "file where the file system ignores case: rename one"
                )
        known = self.model.imports.setdefault(name, file)
        if known != file:
            raise Unsupported(
                f"{name} would come from layers/{known}.py and layers/{file}.py: rename one"
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
    ) -> Value:
        """Append a statement and return the value it gives (for intermediate results)."""
        return self.body.compute(code, shape, dtype, order, self.name)

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
        return self.compute(
            expression(template, operands),
            like.shape if shape is None else shape,
            like.dtype if dtype is None else dtype,
            (like.order if shape is None else None) if order is None else order,
        )

    # -- axis orders -----------------------------------------------------------------------------

    def arrange(self, value: Value, order: Order) -> Value:
        """Return the value stored in the given order, transposing only where that is needed."""
        return transposed(self.model, self.body, value, order)

    def in_any_order(self, value_of: Callable[[Order], Value]) -> Value:
        """Return the node's result in the order its consumers prefer; it costs the same in any.

        Args:
            value_of: emits it in a given order.
        """
        key, order = self.node.key, logical_order(len(self.shape))
        provenance = None if key is None else Provenance(ProvenanceKind.RESULT, key)
        value = value_of(self.preferred(provenance, order))
        return replace(value, provenance=provenance, lineage=None)

    def preferred(self, provenance: Provenance | None, order: Order) -> Order:
        """Return the order in which the consumers of a provenance want it; the given one if any."""
        return order if provenance is None else self.model.preferences.get(provenance, order)

    def logical(self, value: Value) -> Value:
        """Return the value stored in PyTorch's own order."""
        return self.arrange(value, logical_order(value.ndim))

    def channels_last(self, value: Value, rank: int | None = None) -> Value:
        """Return the value stored channels-last.

        Args:
            value: ``(N, C, *S)``, or ``(C, *S)`` where ``rank`` is given and says so.
            rank: number of spatial axes.
        """
        channel = 1 if rank is None else value.ndim - rank - 1
        return self.arrange(value, channels_last(value.ndim, channel))

    def last(self, value: Value, dims: int = 1) -> Value:
        """Return the value with its last ``dims`` logical axes stored last, in sequence.

        Where that takes a transpose, it brings PyTorch's own order, which others want most.
        """
        first = value.ndim - dims
        if value.order[first:] == logical_order(value.ndim)[first:]:
            return value
        return self.logical(value)

    def refuse(self, reason: str) -> Unsupported:
        """Return the exception that says why this node cannot be lowered (raise it)."""
        return Unsupported(reason)
