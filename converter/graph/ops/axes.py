"""Axis arguments: logical axes as the emitted source names the stored ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlxport.converter.graph.code import OMIT, Omit
from mlxport.converter.graph.value import Order, Value


def stored_axis(value: Value, dim: int) -> int:
    """Return where a logical axis is stored; -1 where that is the last of several."""
    return spelled(value.axis(dim), value.ndim)


def stored_axes(value: Value, dims: Iterable[int]) -> int | tuple[int, ...] | Omit:
    """Return where logical axes are stored, as an ``axis`` argument; omitted where all are."""
    axes = sorted(value.axis(dim) for dim in dims)
    if len(axes) == value.ndim:
        return OMIT
    return spelled(axes[0], value.ndim) if len(axes) == 1 else tuple(axes)


def spelled(axis: int, ndim: int) -> int:
    """Return an axis as people write it: the last of several is -1."""
    return -1 if axis == ndim - 1 > 0 else axis


def insert_axis(order: Order, axis: int) -> Order:
    """Return an order with one more logical axis (the others are numbered as if it were there).

    It is stored before the axis that follows it logically, at the end behind the one before it.
    """
    if axis == 0 or not order:
        return (axis, *order)
    following = [a for a in order if a > axis]
    position = order.index(min(following)) if following else order.index(max(order)) + 1
    return (*order[:position], axis, *order[position:])


def with_new_axis(order: Order, axis: int) -> Order:
    """Return the order after a new logical axis was put in at ``axis``."""
    return insert_axis(tuple(a + (a >= axis) for a in order), axis)


def subscript(ndim: int, axis: int, index: Any) -> Any:
    """Return what stands in the brackets to index one stored axis: ``:, 1:3`` or ``..., 0``."""
    if axis == 0:
        return index
    if axis == ndim - 1 and ndim > 2:
        return (..., index)
    return (*[slice(None)] * axis, index)
