"""Values of the model being lowered: an expression and the axis order it is stored in."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch

from mlxport.converter.plan.record import Merged

Order = tuple[int, ...]

# Kinds of origins. The parts of an array taken apart are stored as it is: that one is computed, so
# another order costs a transpose, where others cost none. The columns are those of the weight of a
# linear layer behind a flattened array.
INPUT, ARRAY, MADE, PARTS, COLUMNS = "input:", "array:", "made:", "parts:", "columns:"
_serial = count()


def fresh_id() -> str:
    """Return a name that expressions refer to a value by, which naming replaces later."""
    return f"%{next(_serial)}"


@dataclass(frozen=True)
class Lineage:
    """How the axes of a value come of those of its origin.

    Attributes:
        axes: of each logical axis, the axes of the origin it is made of, in sequence.
        ndim: number of axes of the origin.
    """

    axes: tuple[Order, ...]
    ndim: int

    @classmethod
    def unchanged(cls, ndim: int) -> Lineage:
        """Return the lineage of the origin itself."""
        return cls(tuple((axis,) for axis in range(ndim)), ndim)


@dataclass(eq=False)
class Value:
    """An array of the emitted model.

    Attributes:
        shape: the logical shape, PyTorch's.
        dtype: the dtype PyTorch gives it.
        order: ``order[i]`` is the logical axis stored at physical axis ``i``.
        name: what to call it where it needs a name of its own.
        origin: what it is, but for its shape, of that whose order can be chosen: an input of the
            model, a parameter, an array made of numbers …; None for all other values.
        lineage: how its axes come of the origin's; None where they are the origin's.
        merged: how its last axis was made of several that are stored in another sequence.
        code: the expression that reads it where it has no variable (``self.scale``).
        flows: whether it may be called ``x`` for what flows on; a size keeps its name.
    """

    shape: tuple[Any, ...]
    dtype: torch.dtype
    order: Order
    name: str = "x"
    origin: str | None = None
    lineage: Lineage | None = None
    merged: Merged | None = None
    code: ast.expr | None = None
    id: str = field(default_factory=fresh_id)
    flows: bool = True

    def to_ast(self) -> ast.expr:
        """Return the reference to this value; naming replaces it by a variable later."""
        return ast.Name(self.id) if self.code is None else self.code

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
    def is_settled(self) -> bool:
        """Whether its order is what it is, not what its consumers are free to ask for."""
        return self.origin is None or self.origin.startswith(PARTS)

    @property
    def is_logical(self) -> bool:
        """Whether it is stored in PyTorch's own order."""
        return self.order == identity(self.ndim)

    @property
    def lies_logically(self) -> bool:
        """Whether its elements lie in PyTorch's order, axes of length one left aside.

        Axis 0 is never left aside: a batch of one at capture may be larger later.
        """
        moved = [a for a in self.order if a == 0 or self.shape[a] != 1]
        return moved == sorted(moved)


class Scalar:
    """A Python number of the emitted model that is known only at run time (see ``sizes.py``).

    Attributes:
        kind: the type it has then: int, float or bool.
    """

    kind: type = int

    def to_ast(self) -> ast.expr:
        """Return the expression that gives it."""
        raise NotImplementedError


def identity(ndim: int) -> Order:
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
    """Return a value with the origin of the one it is made of.

    Args:
        value: holds the elements of ``source``, in another shape or some of them.
        source: what it is made of.
        axes: of each logical axis of ``value``, the logical axes of ``source`` it is made of.
    """
    if source.origin is None:
        return replace(value, origin=None, lineage=None)
    before = source.lineage or Lineage.unchanged(source.ndim)
    after = tuple(tuple(b for axis in made_of for b in before.axes[axis]) for made_of in axes)
    return replace(value, origin=source.origin, lineage=Lineage(after, before.ndim))


def order_of_origin(value: Value, order: Order) -> Order | None:
    """Return in which order a value's origin has to be stored for the value to be in ``order``.

    Axes that the value no longer has come first. None where one axis of the origin became several
    that would not lie side by side.
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
        return identity(ndim)
    listed = (dims,) if isinstance(dims, int) else tuple(dims)
    return tuple(sorted(d % max(ndim, 1) for d in listed))
