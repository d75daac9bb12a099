"""Handlers that read, replace and add elements by arrays of indices and by masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import Number, emit, literal, mlx_promoted, typed
from mlxport.converter.graph.ir.value import Value, inherit
from mlxport.converter.graph.ops.axes import stored_axis, subscript
from mlxport.converter.graph.ops.broadcast import align, common_order
from mlxport.converter.graph.ops.comparison import emit_where
from mlxport.converter.graph.ops.creation import filled
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.ops.view import by_vectors, reshaped
from mlxport.layers.arrays import indexing

Indices = Sequence[Value | None]


@op("aten.index.Tensor", "aten._unsafe_index.Tensor", restrictions="not by a mask")
def index(cx: Context, x: Value, indices: Indices) -> Value:
    """Elements at places given by integer arrays, broadcast together."""
    _refuse_masks(cx, indices)
    given = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if len(given) == 1:
        axis, places = given[0]
        return take_along(cx, x, axis, places)
    places_ = tuple(slice(None) if i is None else cx.logical(i) for i in indices)
    return cx.emit("x[places]", x=cx.logical(x), places=places_)


def take_along(cx: Context, x: Value, axis: int, places: Value) -> Value:
    """Emit the slices of one axis at some places, whose axes stand in for it."""
    more = places.ndim - 1
    order: list[int] = []
    for stored in x.order:
        if stored == axis:
            order += range(axis, axis + places.ndim)
        else:
            order.append(stored + more if stored > axis else stored)
    physical = stored_axis(x, axis)
    result = cx.call("mx.take", x, cx.logical(places), axis=physical, order=tuple(order))
    old = tuple((a,) for a in range(x.ndim))
    return inherit(result, x, (*old[:axis], *(old[axis],) * places.ndim, *old[axis + 1 :]))


def _refuse_masks(cx: Context, indices: Indices) -> None:
    if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
        raise cx.refuse("a mask picks as many elements as it holds true, known only at run time")


@op("aten.index_select.default")
def index_select(cx: Context, x: Value, dim: int, places: Value) -> Value:
    """Slices of one axis at some places."""
    if x.ndim == 0:
        return x
    if places.ndim == 0:
        places = reshaped(cx, places, (1,))
    return take_along(cx, x, dim % x.ndim, places)


@op("aten.take.default")
def take(cx: Context, x: Value, places: Value) -> Value:
    """Elements at some places of the flattened array."""
    flat = x if x.is_logical_in_memory else cx.logical(x)
    return cx.call("mx.take", flat, places, order=places.order)


@op("aten.gather.default")
def gather(cx: Context, x: Value, dim: int, places: Value, *, sparse_grad: bool = False) -> Value:
    """From each line along an axis the elements at the places that the same line has."""
    if 0 in cx.shape:
        return filled(cx, 0, cx.shape)
    if x.ndim == 0 or places.ndim == 0:
        return by_vectors(cx, gather, x, dim, places)
    (x, places), order = common_order(cx, [x, places])
    reach = [axis for axis in range(x.ndim) if axis != dim % x.ndim]
    if any(places.shape[axis] != x.shape[axis] for axis in reach):
        taken = tuple(
            slice(None, places.shape[axis]) if axis in reach else slice(None) for axis in order
        )
        shape = [places.shape[a] if a in reach else x.shape[a] for a in range(x.ndim)]
        x = cx.step("x[taken]", x, shape=shape, order=order, x=x, taken=taken)
    return cx.call("mx.take_along_axis", x, places, axis=stored_axis(x, dim), order=order)


@op("aten.scatter.value", "aten.scatter.src")
def scatter(cx: Context, x: Value, dim: int, places: Value, source: Value | Number) -> Value:
    """The array with elements along an axis replaced."""
    return _scattered(cx, indexing.scatter, x, dim, places, source)


@op("aten.scatter_add.default")
def scatter_add(cx: Context, x: Value, dim: int, places: Value, source: Value) -> Value:
    """The array with elements along an axis added to."""
    return _scattered(cx, indexing.scatter_add, x, dim, places, source)


def _scattered(
    cx: Context,
    function: Callable[..., Any],
    x: Value,
    dim: int,
    places: Value,
    source: Value | Number,
) -> Value:
    if 0 in places.shape:
        return x
    if x.ndim == 0 or places.ndim == 0:
        return by_vectors(cx, _scattered, function, x, dim, places, source)
    values = [x, places, source] if isinstance(source, Value) else [x, places]
    arranged, order = common_order(cx, values)
    written = arranged[2] if isinstance(source, Value) else source
    axis = stored_axis(arranged[0], dim)
    return cx.function(function, arranged[0], arranged[1], written, axis=axis, order=order)


@op("aten.index_add.default")
def index_add(
    cx: Context, x: Value, dim: int, places: Value, source: Value, *, alpha: Number = 1
) -> Value:
    """The array with slices added at some places of an axis."""
    if 0 in (*x.shape, *places.shape):
        return x
    if x.ndim == 0:
        return by_vectors(cx, index_add, x, dim, places, source, alpha=alpha)
    (x, source), order = common_order(cx, [x, source])
    places = reshaped(cx, places, (1,)) if places.ndim == 0 else places
    if _is_wide(x.dtype):
        if alpha != 1:
            factor = literal(alpha, x.dtype)
            source = cx.step("factor * source", source, factor=factor, source=source)
        named = [*(None,) * x.axis(dim), places]
        return cx.function(indexing.index_add, x, named, source, order=order)
    axes = [slice(None)] * x.ndim
    where = subscript([*axes[: x.axis(dim)], places, *axes[x.axis(dim) + 1 :]])
    if alpha == 1:
        return cx.emit("x.at[where].add(source)", order=order, x=x, where=where, source=source)
    scaled = typed("alpha * source", x.dtype, alpha=literal(alpha, x.dtype), source=source)
    return cx.emit("x.at[where].add(source)", order=order, x=x, where=where, source=scaled)


@op(
    "aten.index_put.default",
    "aten._unsafe_index_put.default",
    restrictions="a mask only with one value, or one per trailing element",
)
def index_put(
    cx: Context, x: Value, indices: Indices, values: Value, accumulate: bool = False
) -> Value:
    """The array with elements replaced (or added to) at places given by integers or a mask."""
    if 0 in x.shape:  # MLX's scatter into nothing may end the process
        return x
    given = [i for i in indices if i is not None]
    if any(i.dtype in (torch.bool, torch.uint8) for i in given):
        return _masked_put(cx, x, indices, values, accumulate)
    places = tuple(slice(None) if i is None else cx.logical(i) for i in indices)
    x, values = cx.logical(x), cx.logical(values)
    if accumulate and not _is_wide(x.dtype):
        return cx.emit("x.at[places].add(values)", x=x, places=places, values=values)
    named = [None if isinstance(i, slice) else i for i in places]
    function = indexing.index_add if accumulate else indexing.index_put
    return cx.function(function, x, named, values)


def _is_wide(dtype: torch.dtype) -> bool:
    """Whether values of a dtype are not added on every device: see ``scatter_stream``."""
    return dtype.itemsize == 8 and not dtype.is_complex


def _masked_put(cx: Context, x: Value, indices: Indices, values: Value, accumulate: bool) -> Value:
    mask = indices[0]
    if len(indices) != 1 or mask is None or mask.dtype != torch.bool:
        raise cx.refuse("a mask among other indices, or one of uint8")
    rest = x.ndim - mask.ndim
    if values.ndim > rest and not all(size == 1 for size in values.shape[: values.ndim - rest]):
        raise cx.refuse("a mask with one value per element it picks, known only at run time")
    if values.ndim > rest:
        values = reshaped(cx, values, values.shape[values.ndim - rest :])
    if rest:
        mask = reshaped(cx, mask, (*mask.shape, *(1,) * rest))
    if accumulate:
        aligned, order = align(cx, x, values)
        gives = mlx_promoted(*aligned)
        code = "x + values"
        total = cx.step(code, x, dtype=gives, order=order, x=aligned[0], values=aligned[1])
        return emit_where(cx, mask, total, x)
    return emit_where(cx, mask, values, x)


@op("aten.one_hot.default")
def one_hot(cx: Context, x: Value, num_classes: int) -> Value:
    """1 at the place that each integer names along a new last axis, 0 elsewhere."""
    template = "(mx.expand_dims(x, -1) == mx.arange(count))"
    return emit(cx, template, torch.bool, (*x.order, x.ndim), x=x, count=num_classes)


@op("aten.tril.default")
def tril(cx: Context, x: Value, diagonal: int = 0) -> Value:
    """The lower triangle of the last two axes, zeros above."""
    x = cx.last(x, 2)
    return cx.call("mx.tril", x, *([diagonal] if diagonal else []), order=x.order)


@op("aten.triu.default")
def triu(cx: Context, x: Value, diagonal: int = 0) -> Value:
    """The upper triangle of the last two axes, zeros below."""
    x = cx.last(x, 2)
    return cx.call("mx.triu", x, *([diagonal] if diagonal else []), order=x.order)
