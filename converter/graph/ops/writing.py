"""Handlers of writes to slices: torch.export leaves ``x[:, 1:, 0] = y`` as a nest of ops.

Each level of the nest reads a slice of the array and writes it back; what MLX is given is one
update of the array itself, which it can do in place where nothing else needs the array.
"""

from __future__ import annotations

from typing import Any

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.sizes import Size, is_never_negative
from mlxport.converter.graph.ir.value import Sliced, Updated, Value, without_axes
from mlxport.converter.graph.ops.axes import expand_dims, stored_axis, with_new_axis
from mlxport.converter.graph.ops.broadcast import order_for, rearrange
from mlxport.converter.graph.ops.conversion import in_dtype
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.ops.slicing import index_of
from mlxport.layers.arrays import indexing


@op(
    "aten.slice_scatter.default",
    restrictions="along a dynamic axis without steps, from a place counted from the front",
)
def slice_scatter(
    cx: Context,
    x: Value,
    source: Value,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: Any = 1,
) -> Value:
    """The array with ``x[start:end:step]`` along an axis replaced."""
    dim %= x.ndim
    if source.shape == x.shape and step == 1:
        return in_dtype(cx, source)
    first, last, step = _bounds(cx, x.shape[dim], start, end, step)
    if isinstance(source.shape[dim], int) and source.shape[dim] == 0:
        return x
    if step != 1:
        return _written_in_steps(cx, x, source, dim, slice(first, last, step))
    starts = {dim: first}
    inner = _update_of_slice(source, x, dim, slice(first, last))
    if inner is not None:
        source, starts = inner.source, dict(inner.starts)
        starts[dim] = first + starts.get(dim, 0)
    return _updated(cx, x, source, starts)


@op(
    "aten.select_scatter.default",
    restrictions="along a dynamic axis at a place counted from the front",
)
def select_scatter(cx: Context, x: Value, source: Value, dim: int, index: Any) -> Value:
    """The array with ``x[index]`` along an axis replaced."""
    dim %= x.ndim
    if isinstance(index, Size) or isinstance(x.shape[dim], Size):
        index = _from_front(cx, index)
    else:
        index %= x.shape[dim]
    starts: dict[int, Any] = {}
    inner = _update_of_slice(source, x, dim, index)
    if inner is not None:
        source = inner.source
        starts = {axis + (axis >= dim): first for axis, first in inner.starts.items()}
    order = with_new_axis(source.order, dim)
    shape = [*source.shape[:dim], 1, *source.shape[dim:]]
    source = expand_dims(cx, source, [order.index(dim)], shape, order)
    return _updated(cx, x, source, {**starts, dim: index})


def _bounds(cx: Context, size: Any, start: Any, end: Any, step: Any) -> tuple[Any, Any, Any]:
    """Return the ends of a slice, counted from the front."""
    if not any(isinstance(n, Size) for n in (size, start, end, step)):
        return slice(start, end, step).indices(size)
    if end == size or (isinstance(end, int) and end >= 2**62):
        end = None
    if step != 1:
        raise cx.refuse("steps along a dynamic size are written to: that axis must be static")
    return _from_front(cx, 0 if start is None else start), end, step


def _from_front(cx: Context, place: Any) -> Any:
    if not is_never_negative(place):
        raise cx.refuse(
            f"written to from place {place} of a dynamic size, which may count from the end: that "
            "axis must be static"
        )
    return place


def _updated(cx: Context, x: Value, source: Value, starts: dict[int, Any]) -> Value:
    """Emit the update, in the order of what was computed."""
    order = order_for(cx, [v for v in (x, source) if v.has_fixed_order], x.ndim)
    target, put = rearrange(cx, x, order), rearrange(cx, source, order)
    placed = sorted((target.axis(dim), first) for dim, first in starts.items())
    result = cx.emit(
        "mx.slice_update(target, put, mx.array(firsts), axes=axes)",
        order=order,
        target=target,
        put=put,
        firsts=[first for _, first in placed],
        axes=[axis for axis, _ in placed],
    )
    result.variable.producer = Updated(result, x, source, starts)
    return result


def _written_in_steps(cx: Context, x: Value, source: Value, dim: int, taken: slice) -> Value:
    order = order_for(cx, [v for v in (x, source) if v.has_fixed_order], x.ndim)
    target, put = rearrange(cx, x, order), rearrange(cx, source, order)
    axis = stored_axis(target, dim)
    ends = {"start": taken.start, "stop": taken.stop, "step": taken.step}
    return cx.function(indexing.slice_scatter, target, put, axis=axis, order=order, **ends)


def _update_of_slice(source: Value, x: Value, dim: int, index: int | slice) -> Updated | None:
    """Return the update that gave ``source``, if what it updated is ``x[index]`` along the axis."""
    update = source.producer
    if not isinstance(update, Updated) or (source.order, source.shape) != (
        update.result.order,
        update.result.shape,
    ):
        return None
    return update if _is_slice(update.target, x, dim, index) else None


def _is_slice(part: Value, whole: Value, dim: int, index: int | slice) -> bool:
    """Whether a value is ``whole[index]`` along a logical axis, by the slices that gave both."""
    if not isinstance(part.producer, Sliced):
        return False
    base, places = part.producer.base, part.producer.index
    known: tuple[Any, ...] = (slice(None),) * whole.ndim
    if base.variable is not whole.variable:
        other, known = index_of(whole)
        if other.variable is not base.variable or len(places) != len(known):
            return False
    position = [i for i, p in enumerate(known) if isinstance(p, slice)][whole.axis(dim)]
    order = whole.order if isinstance(index, slice) else without_axes(whole.order, [dim])
    elsewhere = (
        places[:position] == known[:position] and places[position + 1 :] == (known[position + 1 :])
    )
    return elsewhere and part.order == order and _agree(places[position], index, whole.shape[dim])


def _ends(place: slice) -> tuple[Any, Any, Any]:
    start = 0 if place.start is None else place.start
    return start, place.stop, 1 if place.step is None else place.step


def _agree(place: Any, index: int | slice, size: int) -> bool:
    if isinstance(place, slice) and isinstance(index, slice):
        if any(isinstance(n, Size) for n in (size, *_ends(place), *_ends(index))):
            return _ends(place) == _ends(index)
        return place.indices(size) == index.indices(size)
    if isinstance(size, Size):
        return bool(place == index)
    if isinstance(place, int) and isinstance(index, int):
        return place % size == index
    return False
