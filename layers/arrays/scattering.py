"""Scatter with a reduction, masked scatter and put, as PyTorch computes them."""

from __future__ import annotations

import math

import mlx.core as mx

from mlxport.layers.arrays.indexing import index_add
from mlxport.layers.device.scatter_stream import scatter_stream

SCATTER_REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def scatter_reduce(
    x: mx.array,
    indices: mx.array,
    source: mx.array,
    axis: int,
    reduce: str,
    include_self: bool = True,
) -> mx.array:
    """Return ``x`` with elements along an axis reduced, as ``torch.scatter_reduce``.

    Args:
        x: any shape of at least one axis.
        indices: integers, with the number of axes of ``x``, and no longer except along ``axis``.
        source: at least as long as ``indices`` along every axis.
        axis: the axis that is indexed.
        reduce: ``sum``, ``prod``, ``mean``, ``amax`` or ``amin``.
        include_self: whether the elements of ``x`` at the indices take part.
    """
    source = source[tuple(slice(n) for n in indices.shape)]
    index_arrays = [
        mx.arange(size).reshape([-1 if i == a else 1 for i in range(x.ndim)])
        for a, size in enumerate(indices.shape)
    ]
    index_arrays[axis] = indices
    return _scatter_reduced(x, tuple(index_arrays), source, reduce, include_self)


def index_reduce(
    x: mx.array,
    indices: mx.array,
    source: mx.array,
    axis: int,
    reduce: str,
    include_self: bool = True,
) -> mx.array:
    """Return ``x`` with slices of an axis reduced, as ``torch.index_reduce``.

    Args:
        x: any shape of at least one axis.
        indices: integers ``(K,)``.
        source: the shape of ``x`` with ``K`` along ``axis``.
        axis: the axis of the slices.
        reduce: ``prod``, ``mean``, ``amax`` or ``amin``.
        include_self: whether the elements of ``x`` at the indices take part.
    """
    shape = [1] * x.ndim
    shape[axis] = -1
    whole = mx.broadcast_to(indices.reshape(shape), source.shape)
    return scatter_reduce(x, whole, source, axis, reduce, include_self)


def masked_scatter(x: mx.array, mask: mx.array, source: mx.array) -> mx.array:
    """Return ``x`` with the elements where a mask is true replaced by those of a source, in order.

    Matches ``torch.masked_scatter``. If the source has too few elements, its last one is repeated,
    where PyTorch raises.

    Args:
        x: any shape.
        mask: bools of that shape.
        source: any shape.
    """
    if source.size == 0:
        return x
    number = mx.cumsum(mask.reshape(-1).astype(mx.int32)) - 1
    taken = mx.take(source.reshape(-1), mx.clip(number, 0, source.size - 1))
    return mx.where(mask, taken.reshape(x.shape), x)


def put(x: mx.array, indices: mx.array, source: mx.array, accumulate: bool = False) -> mx.array:
    """Return ``x`` with elements of the flattened array replaced or added to, as ``torch.put``.

    Args:
        x: any shape.
        indices: integers; negative ones count from the end.
        source: one element per index.
        accumulate: whether to add instead of replacing.
    """
    flat, index, values = x.reshape(-1), indices.reshape(-1), source.reshape(-1)
    if accumulate:
        return index_add(flat, [index], values).reshape(x.shape)
    flat = mx.array(flat)
    with scatter_stream(x.dtype):
        flat[index] = values
    return flat.reshape(x.shape)


def _scatter_reduced(
    x: mx.array, index: tuple[mx.array, ...], source: mx.array, reduce: str, include_self: bool
) -> mx.array:
    hits = mx.zeros(x.shape, dtype=mx.int32).at[index].add(mx.ones(source.shape, mx.int32))
    wide = x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x
    source = source.astype(wide.dtype)
    first = wide if include_self else mx.where(hits > 0, _neutral(wide, reduce), wide)
    if reduce in ("amax", "amin"):
        largest = reduce == "amax"
        with scatter_stream(first.dtype):
            y = first.at[index].maximum(source) if largest else first.at[index].minimum(source)
        if mx.issubdtype(x.dtype, mx.inexact):  # MLX ignores NaN there
            missing = mx.zeros(x.shape, mx.int32).at[index].add(mx.isnan(source).astype(mx.int32))
            y = mx.where((missing > 0) | mx.isnan(first), mx.nan, y)
    elif reduce == "prod":
        with scatter_stream(first.dtype):
            y = first.at[index].multiply(source)
    else:
        y = index_add(first, index, source)
    if reduce == "mean":
        count = mx.maximum(hits + include_self, 1)
        y = y / count if mx.issubdtype(x.dtype, mx.inexact) else y // count.astype(y.dtype)
    return y.astype(x.dtype)


def _neutral(x: mx.array, reduce: str) -> mx.array:
    if reduce in ("sum", "mean"):
        return mx.zeros_like(x)
    if reduce == "prod":
        return mx.ones_like(x)
    if mx.issubdtype(x.dtype, mx.inexact):
        extreme = -math.inf if reduce == "amax" else math.inf
        return mx.full(x.shape, extreme, dtype=x.dtype)
    if x.dtype == mx.bool_:
        return mx.full(x.shape, reduce == "amin", dtype=x.dtype)
    limits = mx.iinfo(x.dtype)
    return mx.full(x.shape, limits.min if reduce == "amax" else limits.max, dtype=x.dtype)
