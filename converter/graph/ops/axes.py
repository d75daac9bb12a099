"""Translate logical axes into stored ones: ``axis`` arguments, new axes, subscripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mlxport.converter.graph.ir.code import OMIT, Omit, call
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Expanded, Order, Reshaped, Value, without_axes


def stored_axis(value: Value, dim: int) -> int:
    """Return where a logical axis is stored; -1 where that is the last of several."""
    return written_axis(value.axis(dim), value.ndim)


def stored_axes(value: Value, dims: Iterable[int]) -> int | tuple[int, ...] | Omit:
    """Return where logical axes are stored, as an ``axis`` argument; omitted where all are."""
    axes = sorted(value.axis(dim) for dim in dims)
    if len(axes) == value.ndim:
        return OMIT
    return written_axis(axes[0], value.ndim) if len(axes) == 1 else tuple(axes)


def written_axis(axis: int, ndim: int) -> int:
    """Return a stored axis as an argument: -1 for the last of several."""
    return -1 if axis == ndim - 1 > 0 else axis


def insert_axis(order: Order, axis: int) -> Order:
    """Return an order with one more logical axis (the others are numbered with it counted).

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


def expand_dims(
    cx: Context, value: Value, positions: Sequence[int], shape: Sequence[Any], order: Order
) -> Value:
    """Emit an array with new axes of length one, together with those it was given just before.

    Args:
        cx: the lowering context.
        value: the array.
        positions: where the new axes are stored in the result.
        shape: the result's logical shape.
        order: the result's order.
    """
    base, before = Expanded.base_of(value)
    kept = [p for p in range(len(shape)) if p not in positions]
    axes = tuple(sorted([*positions, *(kept[axis] for axis in before)]))
    axis = written_axis(axes[0], len(shape)) if len(axes) == 1 else axes
    result = cx.compute(call("mx.expand_dims", base, axis), shape, value.dtype, order)
    result.variable.producer = Expanded(base, axes)
    return result


def squeezed(cx: Context, value: Value, dims: Sequence[int], shape: Sequence[Any]) -> Value:
    """Emit an array without some logical axes of length one; cancels adding them just before.

    Args:
        cx: the lowering context.
        value: the array.
        dims: the logical axes, at least one.
        shape: the result's logical shape.
    """
    order = without_axes(value.order, dims)
    axes = sorted(value.axis(dim) for dim in dims)
    base, added = Expanded.base_of(value)
    if not set(axes) <= set(added):
        axis = axes[0] if len(axes) == 1 else axes
        result = cx.compute(call("mx.squeeze", value, axis), shape, value.dtype, order)
        result.variable.producer = Reshaped(value)
        return result
    if len(axes) == len(added):
        return replace(base, shape=tuple(shape), order=order)
    kept = [position for position in added if position not in axes]
    positions = [position - sum(axis < position for axis in axes) for position in kept]
    return expand_dims(cx, base, positions, shape, order)


def subscript(places: Sequence[Any]) -> Any:
    """Return what stands in the brackets to index every stored axis: ``:, 1:3`` or ``..., 0``."""
    everything = slice(None)
    last = max((i for i, place in enumerate(places) if place != everything), default=0)
    first = next((i for i, place in enumerate(places) if place != everything), 0)
    if last == len(places) - 1 and first > 1:
        return (..., *places[first:])
    return places[0] if last == 0 else tuple(places[: last + 1])
