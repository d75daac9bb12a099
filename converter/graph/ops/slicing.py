"""Handlers of slices along an axis, flips, shifts, diagonals and windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import (
    Scalar,
    Sliced,
    Value,
    inherit,
    normalise_dims,
    without_axes,
)
from mlxport.converter.graph.ops.axes import (
    stored_axis,
    subscript,
    written_axis,
)
from mlxport.converter.graph.ops.creation import filled
from mlxport.converter.graph.ops.parts import part_of, to_split
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.ops.view import reshaped


@op("aten.slice.Tensor", "aten.slice_copy.Tensor")
def slice_(
    cx: Context,
    x: Value,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: Any = 1,
) -> Value:
    """``x[start:end:step]`` along an axis."""
    if cx.shape == x.shape and step == 1:
        return x
    return _indexed(cx, x, dim, _slice(x.shape[dim], start, end, step))


def _indexed(cx: Context, x: Value, dim: int, index: Any) -> Value:
    """Emit the array indexed along one logical axis, together with slices just taken of it."""
    order = x.order if isinstance(index, slice) else without_axes(x.order, [dim % x.ndim])
    base, places = index_of(x)
    position = [i for i, place in enumerate(places) if isinstance(place, slice)][x.axis(dim)]
    if places[position] != slice(None):
        base, places, position = x, (slice(None),) * x.ndim, x.axis(dim)
    places = (*places[:position], index, *places[position + 1 :])
    result = cx.emit("x[index]", order=order, x=base, index=subscript(places))
    result.variable.producer = Sliced(base, places)
    kept = (
        range(x.ndim)
        if isinstance(index, slice)
        else [a for a in range(x.ndim) if a != dim % x.ndim]
    )
    return inherit(result, x, tuple((a,) for a in kept))


def index_of(x: Value) -> tuple[Value, tuple[Any, ...]]:
    """Return what a value is a slice of, or itself, and the index of each stored axis."""
    made = x.producer
    everything = (slice(None),) * x.ndim
    return (made.base, made.index) if isinstance(made, Sliced) else (x, everything)


def _slice(size: Any, start: Any, end: Any, step: Any) -> slice:
    """Return a slice without the ends that change nothing."""
    first: Any = None if start in (None, 0) else start
    last: Any = end
    if isinstance(size, int):
        if isinstance(start, int) and start <= -size:
            first = None
        if isinstance(end, int) and end >= size:
            last = None
    elif isinstance(end, int) and end >= 2**62:
        last = None
    return slice(first, last, None if step == 1 else step)


@op("aten.select.int", "aten.select_copy.int")
def select(cx: Context, x: Value, dim: int, index: Any) -> Value:
    """``x[index]`` along an axis, which is removed."""
    if isinstance(index, int) and x.ndim > 2:
        x = to_split(cx, x, dim % x.ndim)
        return part_of(_indexed(cx, x, dim, index), x, dim % x.ndim)
    return _indexed(cx, x, dim, index)


@op("aten.flip.default")
def flip(cx: Context, x: Value, dims: Sequence[int]) -> Value:
    """The array reversed along some axes."""
    if not dims or x.ndim == 0:
        return x
    axes = sorted(x.axis(dim) for dim in dims)
    axis = written_axis(axes[0], x.ndim) if len(axes) == 1 else tuple(axes)
    return cx.emit("mx.flip(x, axis=axis)", order=x.order, x=x, axis=axis)


@op("aten.roll.default")
def roll(cx: Context, x: Value, shifts: Any, dims: Any = ()) -> Value:
    """The array shifted along some axes, elements beyond one end re-entering at the other."""
    moves = [shifts] if isinstance(shifts, (int, Scalar)) else list(shifts)
    if not dims:
        return cx.emit("mx.roll(x, shift)", x=cx.logical(x), shift=moves[0])
    axes = [x.axis(dim) for dim in ([dims] if isinstance(dims, int) else dims)]
    if len(axes) == 1:
        axis = written_axis(axes[0], x.ndim)
        return cx.emit("mx.roll(x, shift, axis)", order=x.order, x=x, shift=moves[0], axis=axis)
    shift, axis_ = tuple(moves), tuple(axes)
    return cx.emit("mx.roll(x, shift, axis)", order=x.order, x=x, shift=shift, axis=axis_)


@op("aten.diagonal.default", "aten.diagonal_copy.default")
def diagonal(cx: Context, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    """The diagonal of two axes, which it replaces as the last axis."""
    rest = without_axes(x.order, normalise_dims((dim1, dim2), x.ndim))
    order = (*rest, x.ndim - 2)
    axes = x.axis(dim1), x.axis(dim2)
    return cx.call("mx.diagonal", x, offset, *axes, order=order)


@op("aten.unfold.default", "aten.unfold_copy.default")
def unfold_axis(cx: Context, x: Value, dim: int, size: int, step: int) -> Value:
    """Windows along an axis, which counts them; their elements become the last axis."""
    if x.ndim == 0:
        return reshaped(cx, x, cx.shape) if size else filled(cx, 0, cx.shape)
    dim %= x.ndim
    order = tuple(n for axis in x.order for n in ([dim, x.ndim] if axis == dim else [axis]))
    return cx.emit(
        "mx.take(x, mx.expand_dims(mx.arange(0, end, step), 1) + mx.arange(size), axis=axis)",
        order=order,
        x=x,
        end=cx.shape[dim] * step,
        step=step,
        size=size,
        axis=stored_axis(x, dim),
    )
