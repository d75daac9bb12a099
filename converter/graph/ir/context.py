"""What an op handler sees of the lowering: emit expressions, choose axis orders, refuse."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch

from mlxport.converter.errors import ConversionError
from mlxport.converter.graph.ir.code import call, expression
from mlxport.converter.graph.ir.printing import alone, statement_text
from mlxport.converter.graph.ir.user_files import NotPortable, OwnFile, is_ours, own_file
from mlxport.converter.graph.ir.value import (
    NodeName,
    Order,
    Provenance,
    ProvenanceKind,
    Scalar,
    Value,
    Variable,
    channels_last,
    identity,
    order_of_provenance,
    permutation,
    uses_in,
)
from mlxport.converter.plan.record import DrawRecord

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
        draws: whether it draws random numbers; such statements stay, in their order.
    """

    targets: tuple[Value, ...]
    code: ast.expr
    module: str | None = None
    nesting: Nesting | None = None
    draws: bool = False

    def __str__(self) -> str:
        return statement_text(self, alone(self.targets, uses_in(self.code)))


@dataclass
class Context:
    """The body being written and the node being lowered.

    Attributes:
        statements: the body so far.
        imports: name of a function or class -> the file of ``layers/`` it comes from.
        own: file of the user's own in ``layers/`` -> what it holds.
        demands: provenance of an input or parameter -> the orders that consumers asked it in.
        preferences: provenance of an input, parameter or draw -> the order it should be stored in.
        draws: the random draws of the whole model so far.
        above_one: dynamic sizes that were taken for more than one: PyTorch drops axes of one.
        results: what PyTorch says the node gives, as ``(shape, dtype)`` of every tensor.
        name: what to call the node's result where it needs a name of its own.
        node: the node itself, for what its values do not tell: strides, and which results are read.
        place: what tells the node from all others of the model.
        source: the same of its first operand.
        arranged: transposes already made in this body, by value and axes.
        moved: transposed array -> the one it was made of, and the axes of that.
        sliced: slice of another value -> that value and the index of each of its stored axes.
        updated: array with a slice replaced -> how it came about (see ``ops/writing.py``).
        viewed: array in another shape -> the one it was made of.
        flattened: array flattened behind a transpose -> itself and what lay so (``flattened.py``).
        expanded: value with new axes of length one -> the one without, and where they are stored.
        inputs: what the body is given.
        made: values that come of no float (see ``made_floats.py``) among the first ``scanned``
            statements.
    """

    statements: list[Statement] = field(default_factory=list)
    imports: dict[str, str] = field(default_factory=dict)
    demands: dict[Provenance, list[Order]] = field(default_factory=dict)
    preferences: Mapping[Provenance, Order] = field(default_factory=dict)
    draws: list[DrawRecord] = field(default_factory=list)
    above_one: list[Any] = field(default_factory=list)
    results: tuple[tuple[tuple[Any, ...], torch.dtype], ...] = ()
    name: str = "x"
    node: Any = None
    place: NodeName | None = None
    source: NodeName | None = None
    arranged: dict[tuple[Variable, Order], Value] = field(default_factory=dict)
    moved: dict[Variable, tuple[Value, Order]] = field(default_factory=dict)
    sliced: dict[Variable, tuple[Value, tuple[Any, ...]]] = field(default_factory=dict)
    updated: dict[Variable, Any] = field(default_factory=dict)
    viewed: dict[Variable, Value] = field(default_factory=dict)
    flattened: dict[Variable, tuple[Value, Value]] = field(default_factory=dict)
    expanded: dict[Variable, tuple[Value, tuple[int, ...]]] = field(default_factory=dict)
    own: dict[str, OwnFile] = field(default_factory=dict)
    inputs: Sequence[Value] = ()
    made: set[Variable] = field(default_factory=set)
    scanned: int = 0

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
        provenance: Provenance | None = None,
    ) -> Value:
        """Append a statement and return the value it gives (for intermediate results)."""
        shape = tuple(shape)
        value = Value(
            shape, dtype, identity(len(shape)) if order is None else order, self.name, provenance
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
        key = (value.variable, permutation(value.order, order))
        if key not in self.arranged:
            name, self.name = self.name, value.name
            self.arranged[key] = self._expanded_elsewhere(value, order) or self._moved(value, order)
            self.name = name
        return replace(self.arranged[key], shape=value.shape, order=order)

    def lies(self, value: Value, order: Order) -> bool:
        """Whether the value is there in the given order already, transposed for another."""
        axes = permutation(value.order, order)
        _, before = self.moved.get(value.variable, (value, identity(value.ndim)))
        there = identity(value.ndim) in (axes, tuple(before[axis] for axis in axes))
        return there or (value.variable, axes) in self.arranged

    def _moved(self, value: Value, order: Order) -> Value:
        """Emit a transpose; where the value comes of one itself, both in one or neither."""
        wanted = order_of_provenance(value, order)
        if value.provenance is not None and wanted is not None:
            self.demands.setdefault(value.provenance, []).append(wanted)
        axes = permutation(value.order, order)
        base, before = self.moved.get(value.variable, (value, identity(value.ndim)))
        axes = tuple(before[axis] for axis in axes)
        if axes == identity(value.ndim):
            return replace(base, shape=value.shape, order=order, provenance=None, lineage=None)
        code = ast.Call(
            ast.Attribute(base.to_ast(), "transpose"), [ast.Constant(a) for a in axes], []
        )
        result = self.compute(code, value.shape, value.dtype, order)
        self.moved[result.variable] = base, axes
        return result

    def _expanded_elsewhere(self, value: Value, order: Order) -> Value | None:
        """Emit the array without its new axes of length one again, with them where they are wanted.

        None where others than those would move.
        """
        base, positions = self.expanded.get(value.variable, (value, ()))
        new = {value.order[position] for position in positions}
        if [a for a in value.order if a not in new] != [a for a in order if a not in new]:
            return None
        places = tuple(order.index(axis) for axis in sorted(new, key=order.index))
        axis = places if len(places) > 1 else -1 if places[0] == value.ndim - 1 else places[0]
        result = self.compute(call("mx.expand_dims", base, axis), value.shape, value.dtype, order)
        self.expanded[result.variable] = base, places
        return result

    def chosen(self, value_of: Callable[[Order], Value]) -> Value:
        """Return the node's result in the order its consumers want, which any would do for.

        Args:
            value_of: emits it in a given order.
        """
        provenance = Provenance(ProvenanceKind.RESULT, self.place) if self.place else None
        value = value_of(self.preferred(provenance, identity(len(self.shape))))
        return replace(value, provenance=provenance, lineage=None)

    def preferred(self, provenance: Provenance | None, order: Order) -> Order:
        """Return the order in which the consumers of a provenance want it; the given one if any."""
        return order if provenance is None else self.preferences.get(provenance, order)

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
        """Return the value with its last ``dims`` logical axes stored last, in sequence.

        Where that takes a transpose, it brings PyTorch's own order, which others want most.
        """
        first = value.ndim - dims
        if value.order[first:] == identity(value.ndim)[first:]:
            return value
        return self.logical(value)

    def refuse(self, reason: str) -> Unsupported:
        """Return the exception that says why this node cannot be lowered (raise it)."""
        return Unsupported(reason)


Result = Value | Scalar | tuple[Any, ...] | list[Any] | int | float | bool | None
Handler = Callable[..., Result]
