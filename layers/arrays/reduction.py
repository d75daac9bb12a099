"""Sums of many values and of half precision, as precise as PyTorch's.

MLX adds half precision in half precision (a mean of float16 overflows where its sum does), and on
the CPU the values of a sum one after another.
"""

from __future__ import annotations

import math

import mlx.core as mx

from mlxport.layers.norm.statistics import mean_keepdims, upcast

AxisLike = int | tuple[int, ...] | None


def mean(x: mx.array, axis: AxisLike = None, keepdims: bool = False) -> mx.array:
    """Return the mean over some axes (all by default), as ``torch.mean``.

    Args:
        x: any shape, floating.
        axis: one axis or several.
        keepdims: whether they stay with size 1.
    """
    axes = _axes(x, axis)
    return _finish(mean_keepdims(upcast(x), axes), axes, keepdims).astype(x.dtype)


def total(x: mx.array, axis: AxisLike = None, keepdims: bool = False) -> mx.array:
    """Return the sum over some axes (all by default), as ``torch.sum`` of floating values."""
    axes = _axes(x, axis)
    return _finish(_total(upcast(x), axes), axes, keepdims).astype(x.dtype)


def variance(x: mx.array, axis: AxisLike = None, keepdims: bool = False, ddof: int = 0) -> mx.array:
    """Return the variance over some axes, as ``torch.var(correction=ddof)``."""
    axes = _axes(x, axis)
    return _finish(_variance(x, axes, ddof), axes, keepdims).astype(x.dtype)


def deviation(
    x: mx.array, axis: AxisLike = None, keepdims: bool = False, ddof: int = 0
) -> mx.array:
    """Return the standard deviation over some axes, as ``torch.std(correction=ddof)``."""
    axes = _axes(x, axis)
    return _finish(mx.sqrt(_variance(x, axes, ddof)), axes, keepdims).astype(x.dtype)


def norm(x: mx.array, order: float = 2, axis: AxisLike = None, keepdims: bool = False) -> mx.array:
    """Return the norm of vectors along some axes, as ``torch.linalg.vector_norm``.

    Args:
        x: any shape, floating.
        order: any number, infinities included; 0 counts what is not zero.
        axis: one axis or several that together hold a vector; all by default.
        keepdims: whether they stay with size 1.
    """
    axes = _axes(x, axis)
    size = mx.abs(upcast(x))
    if math.isinf(order):
        y = (mx.max if order > 0 else mx.min)(size, axis=axes, keepdims=True)
    elif order == 0:
        y = _total((size != 0).astype(size.dtype), axes)
    elif order == 2:
        y = mx.sqrt(_total(mx.square(size), axes))
    else:
        y = _total(size if order == 1 else size**order, axes)
        y = y if order == 1 else y ** (1 / order)
    return _finish(y, axes, keepdims).astype(x.dtype)


def _axes(x: mx.array, axis: AxisLike) -> tuple[int, ...]:
    given = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return tuple(a % x.ndim for a in given)


def _total(x: mx.array, axes: tuple[int, ...]) -> mx.array:
    count = math.prod(x.shape[axis] for axis in axes)
    return mean_keepdims(x, axes) * count if count else mx.sum(x, axis=axes, keepdims=True)


def _variance(x: mx.array, axes: tuple[int, ...], ddof: int) -> mx.array:
    wide = upcast(x)
    count = math.prod(x.shape[axis] for axis in axes)
    squares = _total(mx.square(wide - mean_keepdims(wide, axes)), axes)
    return squares / max(count - ddof, 0)


def _finish(y: mx.array, axes: tuple[int, ...], keepdims: bool) -> mx.array:
    return y if keepdims else mx.squeeze(y, axis=axes)
