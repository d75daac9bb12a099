"""Values of the model being lowered: an expression and the axis order it is stored in."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch

Order = tuple[int, ...]
_serial = count()


def fresh_id() -> str:
    """Return a name that expressions refer to a value by, which naming replaces later."""
    return f"%{next(_serial)}"


@dataclass(eq=False)
class Value:
    """An array of the emitted model.

    Attributes:
        shape: the logical shape, PyTorch's.
        dtype: the dtype PyTorch gives it.
        order: ``order[i]`` is the logical axis stored at physical axis ``i``.
        name: what to call it where it needs a name of its own.
        origin: the model input or parameter it is, so that the order it should be stored in can
            be chosen; None for computed values.
        code: the expression that reads it where it has no variable (``self.scale``).
    """

    shape: tuple[Any, ...]
    dtype: torch.dtype
    order: Order
    name: str = "x"
    origin: str | None = None
    code: ast.expr | None = None
    id: str = field(default_factory=fresh_id)

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


@dataclass(eq=False)
class Scalar:
    """A Python number of the emitted model (a size of an array, say).

    Attributes:
        code: the expression that gives it.
    """

    code: ast.expr

    def to_ast(self) -> ast.expr:
        """Return the expression."""
        return self.code


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


def normalise_dims(dims: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Return logical axes as sorted non-negative numbers; None or empty means all of them."""
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        return identity(ndim)
    listed = (dims,) if isinstance(dims, int) else tuple(dims)
    return tuple(sorted(d % max(ndim, 1) for d in listed))
