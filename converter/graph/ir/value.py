"""Values of the IR: an array of the emitted model, its axis order, and how it was produced."""

from __future__ import annotations

import ast
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch

from mlxport.converter.graph.ir.code import Hole
from mlxport.converter.graph.ir.printing import value_text
from mlxport.converter.graph.ir.provenance import Lineage, Provenance, ProvenanceKind
from mlxport.converter.plan.record import Merged

Order = tuple[int, ...]


class Variable:
    """What one expression of a body gives, assigned once; several values may be views of it.

    It has no name of its own: `Variables` names it when the body is written.

    Attributes:
        producer: how it came about, where a consumer may look through that.
        transposes: axes -> the value that is it transposed so: a common subexpression.
        flattened: the array it is the flattened form of, where that took a transpose.
        broadcast: what it is broadcast from.
        repeated: what it repeats along an axis.
        number: its value, where it is a constant without axes.
    """

    def __init__(self) -> None:
        self.producer: Producer | None = None
        self.transposes: dict[Order, Value] = {}
        self.flattened: Flattened | None = None
        self.broadcast: Broadcast | None = None
        self.repeated: Repeated | None = None
        self.number: torch.Tensor | None = None

    def __str__(self) -> str:
        return "%"


class Use(Hole):
    """Stands in an expression for a variable of the body."""

    key: Variable


def uses_in(tree: ast.expr) -> list[Variable]:
    """Return the variables an expression reads, in order, each as often as it is read."""
    return [node.key for node in ast.walk(tree) if isinstance(node, Use)]


def expression_structure(tree: Any, numbers: dict[Variable, int]) -> Hashable:
    """Return what expressions share that are the same but for the variables they read.

    Args:
        tree: an expression, or a part of one.
        numbers: variable -> its number in the order of first use; gains those first used here.
    """
    if isinstance(tree, Use):
        return Use, numbers.setdefault(tree.key, len(numbers))
    if isinstance(tree, ast.AST):
        fields = ((n, expression_structure(part, numbers)) for n, part in ast.iter_fields(tree))
        return (type(tree), *(field for field in fields if field[0] not in ("ctx", "kind")))
    if isinstance(tree, list):
        return tuple(expression_structure(item, numbers) for item in tree)
    return type(tree), repr(tree)


@dataclass(eq=False)
class Value:
    """An array of the emitted model.

    Attributes:
        shape: the logical shape, PyTorch's.
        dtype: the dtype PyTorch gives it.
        order: ``order[i]`` is the logical axis stored at physical axis ``i``.
        name: what to call it where it needs a name of its own.
        provenance: the array whose axis order may be chosen and whose elements it holds, in any
            shape; None for all other values.
        lineage: how its axes come of the provenance's; None where they are the provenance's.
        merged: how its last axis was made of several that are stored in another sequence.
        code: the expression that reads it where it has no variable (``self.scale``).
        variable: what expressions refer to it by.
        flows: whether it may be called ``x`` for what flows on; a size keeps its name.
    """

    shape: tuple[Any, ...]
    dtype: torch.dtype
    order: Order
    name: str = "x"
    provenance: Provenance | None = None
    lineage: Lineage | None = None
    merged: Merged | None = None
    code: ast.expr | None = None
    variable: Variable = field(default_factory=Variable)
    flows: bool = True

    def __str__(self) -> str:
        return value_text(self, self.name)

    def to_ast(self) -> ast.expr:
        """Return the reference to this value; naming replaces it by a variable later."""
        return Use(self.variable) if self.code is None else self.code

    @property
    def producer(self) -> Producer | None:
        """How its array came about, where a consumer may look through that."""
        return self.variable.producer

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def stored_shape(self) -> tuple[Any, ...]:
        """The shape as stored: ``shape`` in ``order``."""
        return tuple(self.shape[axis] for axis in self.order)

    def axis(self, dim: int) -> int:
        """Return where logical axis ``dim`` (may be negative) is stored."""
        return self.order.index(dim % self.ndim)

    @property
    def has_fixed_order(self) -> bool:
        """Whether another axis order costs a transpose: it is computed in this one."""
        return self.provenance is None or self.provenance.kind is ProvenanceKind.SPLIT

    @property
    def is_logical(self) -> bool:
        """Whether it is stored in PyTorch's own order."""
        return self.order == logical_order(self.ndim)

    @property
    def is_logical_in_memory(self) -> bool:
        """Whether its elements are stored in PyTorch's order, axes of length one left aside.

        Axis 0 is never left aside: a batch of one at capture may be larger later.
        """
        moved = [a for a in self.order if a == 0 or self.shape[a] != 1]
        return moved == sorted(moved)


@dataclass(frozen=True, eq=False)
class Transposed:
    """The producer of ``base.transpose(axes)``; ``base`` is no transpose itself."""

    base: Value
    axes: Order


@dataclass(frozen=True, eq=False)
class Reshaped:
    """The producer of a view: the elements of ``base`` in another stored shape."""

    base: Value


@dataclass(frozen=True, eq=False)
class Expanded:
    """The producer of ``base`` with new axes of length one.

    Attributes:
        base: the array without them.
        positions: where they are stored.
    """

    base: Value
    positions: tuple[int, ...]

    @staticmethod
    def base_of(value: Value) -> tuple[Value, tuple[int, ...]]:
        """Return a value without the axes it was just given, and where those are stored."""
        if isinstance(value.producer, Expanded):
            return value.producer.base, value.producer.positions
        return value, ()


@dataclass(frozen=True, eq=False)
class Sliced:
    """The producer of ``base[index]``.

    Attributes:
        base: an array that is no slice itself, or one sliced along the same axis.
        index: the index of each of its stored axes.
    """

    base: Value
    index: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Updated:
    """The producer of ``target`` with ``source`` put in.

    Attributes:
        result: the updated array.
        target: the array as it was.
        source: what was put in.
        starts: logical axis -> where on it the source starts; at 0 on all others. A number or a
            dynamic size.
    """

    result: Value
    target: Value
    source: Value
    starts: Mapping[int, Any]


@dataclass(frozen=True, eq=False)
class Flattened:
    """An array flattened in PyTorch's order, which took a transpose.

    Attributes:
        result: the flattened array, ``(*B, n)``.
        base: the array in the order it was in, ``(*B, n1, n2, ...)``.
    """

    result: Value
    base: Value


@dataclass(frozen=True, eq=False)
class Broadcast:
    """An array broadcast to a shape.

    Attributes:
        result: the larger array.
        base: the array it was made of.
    """

    result: Value
    base: Value


@dataclass(frozen=True, eq=False)
class Repeated:
    """An array in which each slice along an axis stands several times, one behind the other.

    Attributes:
        result: the array, ``(*A, n * count, *B)``.
        base: the array without repetition, ``(*A, n, *B)``.
        axis: the logical axis of ``result``.
        count: how often each slice stands there.
        new_axis: the logical axis of length one that ``base`` has besides; None where it has none.
    """

    result: Value
    base: Value
    axis: int
    count: int
    new_axis: int | None = None


Producer: TypeAlias = Transposed | Reshaped | Expanded | Sliced | Updated


class Scalar:
    """A Python number of the emitted model that is known only at run time (see ``sizes.py``).

    Attributes:
        kind: the type it has then: int, float or bool.
    """

    kind: type = int

    def to_ast(self) -> ast.expr:
        """Return the expression that gives it."""
        raise NotImplementedError


def logical_order(ndim: int) -> Order:
    """PyTorch's own axis order."""
    return tuple(range(ndim))


def channels_last(ndim: int, channel: int = 1) -> Order:
    """Return the order with axis ``channel`` stored last and all others kept in sequence."""
    return (*(axis for axis in range(ndim) if axis != channel), channel)


def without_axes(order: Order, removed: Iterable[int]) -> Order:
    """Return the order of what remains when logical axes are dropped (and renumbered)."""
    gone = sorted(set(removed))
    return tuple(a - sum(g < a for g in gone) for a in order if a not in gone)


def permutation(source: Order, target: Order) -> Order:
    """Return the axes argument that brings an array stored in ``source`` order to ``target``."""
    return tuple(source.index(axis) for axis in target)


def inherit(value: Value, source: Value, axes: Sequence[Sequence[int]]) -> Value:
    """Return a value with the provenance of the one it is made of.

    Args:
        value: holds the elements of ``source``, in another shape or some of them.
        source: what it is made of.
        axes: of each logical axis of ``value``, the logical axes of ``source`` it is made of.
    """
    if source.provenance is None:
        return replace(value, provenance=None, lineage=None)
    before = source.lineage or Lineage.unchanged(source.ndim)
    after = tuple(tuple(b for axis in made_of for b in before.axes[axis]) for made_of in axes)
    return replace(value, provenance=source.provenance, lineage=Lineage(after, before.ndim))


def order_of_provenance(value: Value, order: Order) -> Order | None:
    """Return the order in which a provenance has to be stored for a value of it to be in ``order``.

    Axes that the value no longer has come first. None where one axis of the provenance became
    several that would not be adjacent.
    """
    lineage = value.lineage or Lineage.unchanged(value.ndim)
    wanted: list[int] = []
    for axis in order:
        for source in lineage.axes[axis]:
            if wanted[-1:] != [source]:
                wanted.append(source)
    if len(set(wanted)) != len(wanted):
        return None
    return (*(axis for axis in range(lineage.ndim) if axis not in wanted), *wanted)


def normalise_dims(dims: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Return logical axes as sorted non-negative numbers; None or empty means all of them."""
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        return logical_order(ndim)
    listed = (dims,) if isinstance(dims, int) else tuple(dims)
    return tuple(sorted(d % max(ndim, 1) for d in listed))
