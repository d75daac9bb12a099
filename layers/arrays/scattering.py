"""Elements of an array reduced with others put in at given places, as PyTorch does."""

from __future__ import annotations

import math

import mlx.core as mx

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
        indices: integers, of as many axes as ``x`` and nowhere longer, except along ``axis``.
        source: at least as long as ``indices`` along every axis.
        axis: the axis that the indices run along.
        reduce: ``sum``, ``prod``, ``mean``, ``amax`` or ``amin``.
        include_self: whether what ``x`` holds at the places counts.
    """
    source = source[tuple(slice(n) for n in indices.shape)]
    places = [
        mx.arange(size).reshape([-1 if i == a else 1 for i in range(x.ndim)])
        for a, size in enumerate(indices.shape)
    ]
    places[axis] = indices
    return _reduced(x, tuple(places), source, reduce, include_self)


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
        include_self: whether what ``x`` holds at the places counts.
    """
    shape = [1] * x.ndim
    shape[axis] = -1
    whole = mx.broadcast_to(indices.reshape(shape), source.shape)
    return scatter_reduce(x, whole, source, axis, reduce, include_self)


def masked_scatter(x: mx.array, mask: mx.array, source: mx.array) -> mx.array:
    """Return ``x`` with the elements where a mask holds replaced one by one.

    Matches ``torch.masked_scatter``; beyond the end of the source its last element is repeated,
    where PyTorch raises.

    Args:
        x: any shape.
        mask: bools of that shape.
        source: any shape; its elements are taken in sequence.
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
        indices: integers, which may count from the end.
        source: as many elements.
        accumulate: add them.
    """
    flat, places, values = x.reshape(-1), indices.reshape(-1), source.reshape(-1)
    if accumulate:
        return flat.at[places].add(values).reshape(x.shape)
    flat = mx.array(flat)
    flat[places] = values
    return flat.reshape(x.shape)


def _reduced(
    x: mx.array, places: tuple[mx.array, ...], source: mx.array, reduce: str, include_self: bool
) -> mx.array:
    touched = mx.zeros(x.shape, dtype=mx.int32).at[places].add(mx.ones(source.shape, mx.int32))
    wide = x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x
    source = source.astype(wide.dtype)
    first = wide if include_self else mx.where(touched > 0, _neutral(wide, reduce), wide)
    if reduce in ("amax", "amin"):
        largest = reduce == "amax"
        y = first.at[places].maximum(source) if largest else first.at[places].minimum(source)
        if mx.issubdtype(x.dtype, mx.inexact):  # MLX passes over NaN there
            missing = mx.zeros(x.shape, mx.int32).at[places].add(mx.isnan(source).astype(mx.int32))
            y = mx.where((missing > 0) | mx.isnan(first), mx.nan, y)
    elif reduce == "prod":
        y = first.at[places].multiply(source)
    else:
        y = first.at[places].add(source)
    if reduce == "mean":
        count = mx.maximum(touched + include_self, 1)
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
