"""Handlers that move, add, remove and repeat axes, and that join and split arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from mlxport.converter.graph.ir.code import OMIT
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import emit, mlx_promoted
from mlxport.converter.graph.ir.value import Broadcast, Repeated, Value, inherit, without_axes
from mlxport.converter.graph.ops.axes import expand_dims, squeezed, stored_axis, with_new_axis
from mlxport.converter.graph.ops.broadcast import common_order
from mlxport.converter.graph.ops.conversion import in_dtype
from mlxport.converter.graph.ops.parts import part_of, to_split
from mlxport.converter.graph.ops.registry import op

# -- axes moved: the order changes, nothing is emitted -------------------------------------------


@op("aten.permute.default")
def permute(cx: Context, x: Value, dims: Sequence[int]) -> Value:
    """Logical axes in another sequence."""
    moved = [dim % x.ndim for dim in dims]
    order = tuple(moved.index(axis) for axis in x.order)
    return inherit(replace(x, shape=cx.shape, order=order), x, tuple((axis,) for axis in moved))


@op("aten.transpose.int")
def transpose(cx: Context, x: Value, a: int, b: int) -> Value:
    """Two logical axes exchanged."""
    dims = list(range(x.ndim))
    if dims:
        dims[a], dims[b] = dims[b], dims[a]
    return permute(cx, x, dims)


@op("aten.t.default")
def t(cx: Context, x: Value) -> Value:
    """A matrix transposed."""
    return permute(cx, x, range(x.ndim)[::-1])


# -- axes of length one --------------------------------------------------------------------------


@op("aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze.default")
def squeeze(cx: Context, x: Value, dims: int | Sequence[int] | None = None) -> Value:
    """Axes of length one removed, the given ones or all."""
    wanted = range(x.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = [
        d % x.ndim for d in wanted if x.ndim and isinstance(x.shape[d], int) and x.shape[d] == 1
    ]
    cx.model.above_one += [x.shape[d] for d in wanted if x.ndim and not isinstance(x.shape[d], int)]
    if not gone:
        return x
    y = squeezed(cx, x, gone, cx.shape)
    return inherit(y, x, tuple((d,) for d in range(x.ndim) if d not in gone))


@op("aten.unsqueeze.default")
def unsqueeze(cx: Context, x: Value, dim: int) -> Value:
    """A new axis of length one."""
    dim %= x.ndim + 1
    order = with_new_axis(x.order, dim)
    y = expand_dims(cx, x, [order.index(dim)], cx.shape, order)
    old = tuple((d,) for d in range(x.ndim))
    return inherit(y, x, (*old[:dim], (), *old[dim:]))


# -- repetition ----------------------------------------------------------------------------------


@op("aten.expand.default")
def expand(cx: Context, x: Value, size: Sequence[Any], implicit: bool = False) -> Value:
    """Axes of length one read several times over; new ones come first."""
    return broadcast_to(cx, x, size)


def broadcast_to(cx: Context, x: Value, size: Sequence[Any]) -> Value:
    """Return the value broadcast to the node's shape, new axes in front, in the value's dtype."""
    if cx.shape == x.shape:
        return x
    new = len(cx.shape) - x.ndim
    order = (*range(new), *(axis + new for axis in x.order))
    shape = tuple(size[a] if size[a] != -1 else cx.shape[a] for a in order)
    result = cx.emit("mx.broadcast_to(x, shape)", order=order, x=x, shape=shape)
    result.variable.broadcast = Broadcast(result, x)
    return result


@op("aten.repeat.default")
def repeat(cx: Context, x: Value, repeats: Sequence[Any]) -> Value:
    """The array repeated along each axis; new axes come first."""
    new = len(cx.shape) - x.ndim
    order = (*range(new), *(axis + new for axis in x.order))
    counts = tuple(repeats[axis] for axis in order)
    if not new and all(count == 1 for count in counts):
        return x
    return cx.emit("mx.tile(x, counts)", order=order, x=x, counts=counts)


@op("aten.repeat_interleave.self_int")
def repeat_interleave(
    cx: Context, x: Value, repeats: Any, dim: int | None = None, output_size: int | None = None
) -> Value:
    """Each element repeated along an axis, or along the flattened array."""
    if dim is None:
        return cx.emit("mx.repeat(x, repeats)", x=cx.logical(x), repeats=repeats)
    axis = stored_axis(x, dim)
    template = "mx.repeat(x, repeats, axis)"
    result = cx.emit(template, order=x.order, x=x, repeats=repeats, axis=axis)
    if isinstance(repeats, int):
        result.variable.repeated = Repeated(result, x, dim % x.ndim, repeats)
    return result


# -- arrays joined -------------------------------------------------------------------------------


@op("aten.cat.default")
def cat(cx: Context, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Arrays joined along an axis; empty 1-D ones are left out, as PyTorch does."""
    parts = [x for x in tensors if not _is_empty(x)]
    if not parts:
        parts = [x for x in tensors if x.shape != (0,)] or list(tensors[:1])
    gives = mlx_promoted(*parts)
    if len(parts) == 1:
        return in_dtype(cx, parts[0])
    arranged, order = common_order(cx, parts)
    axis = stored_axis(arranged[0], dim) or OMIT
    template = "mx.concatenate(parts, axis=axis)"
    return emit(cx, template, gives, order, parts=arranged, axis=axis)


def _is_empty(x: Value) -> bool:
    return any(isinstance(size, int) and size == 0 for size in x.shape)


@op("aten.stack.default")
def stack(cx: Context, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Arrays joined along a new axis."""
    arranged, order = common_order(cx, tensors)
    dim %= tensors[0].ndim + 1
    order = with_new_axis(order, dim)
    position = order.index(dim)
    axis = -1 if position == len(order) - 1 > 0 else position or OMIT
    gives = mlx_promoted(*tensors)
    return emit(cx, "mx.stack(parts, axis=axis)", gives, order, parts=arranged, axis=axis)


# -- arrays split --------------------------------------------------------------------------------


@op(
    "aten.split.Tensor",
    "aten.split_with_sizes.default",
    "aten.split_with_sizes_copy.default",
    "aten.split_copy.Tensor",
    "aten.unsafe_split.Tensor",
    "aten.unsafe_split_with_sizes.default",
)
def split_tensor(cx: Context, x: Value, size: Any, dim: int = 0) -> tuple[Value, ...]:
    """Pieces of the given size or sizes along an axis."""
    sizes = [shape[dim] for shape, _ in cx.results]
    if len(sizes) == 1:
        return (x,)
    even = len(set(sizes)) == 1
    cuts = len(sizes) if even else list(accumulate(sizes[:-1]))
    axis = stored_axis(x, dim) or OMIT
    template = "mx.split(x, cuts, axis=axis)"
    return cx.emit_many(template, orders=[x.order] * len(sizes), x=x, cuts=cuts, axis=axis)


@op("aten.unbind.int", "aten.unbind_copy.int")
def unbind(cx: Context, x: Value, dim: int = 0) -> tuple[Value, ...]:
    """The slices along an axis, without that axis."""
    dim %= x.ndim
    if len(cx.results) == 1:
        return (squeezed(cx, x, [dim], cx.shape),)
    x = to_split(cx, x, dim)
    axis = stored_axis(x, dim) or OMIT
    orders = [without_axes(x.order, [dim])] * len(cx.results)
    parts = cx.emit_many("mx.unstack(x, axis=axis)", orders=orders, x=x, axis=axis)
    return tuple(part_of(part, x, dim) for part in parts)
