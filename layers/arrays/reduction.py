"""Mean, sum, variance, standard deviation and norm, as precise as PyTorch's.

MLX sums half precision in half precision (a mean of float16 overflows where its sum does), and on
the CPU it adds the values of a sum one after another, so errors grow with their number.
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
        keepdims: whether they are kept with size 1.
    """
    axes = _axes(x, axis)
    return _squeezed(mean_keepdims(upcast(x), axes), axes, keepdims).astype(x.dtype)


def total(x: mx.array, axis: AxisLike = None, keepdims: bool = False) -> mx.array:
    """Return the sum over some axes (all by default), as ``torch.sum`` of floating values."""
    axes = _axes(x, axis)
    return _squeezed(_total(upcast(x), axes), axes, keepdims).astype(x.dtype)


def variance(x: mx.array, axis: AxisLike = None, keepdims: bool = False, ddof: int = 0) -> mx.array:
    """Return the variance over some axes, as ``torch.var(correction=ddof)``."""
    axes = _axes(x, axis)
    return _squeezed(_variance(x, axes, ddof), axes, keepdims).astype(x.dtype)


def deviation(
    x: mx.array, axis: AxisLike = None, keepdims: bool = False, ddof: int = 0
) -> mx.array:
    """Return the standard deviation over some axes, as ``torch.std(correction=ddof)``."""
    axes = _axes(x, axis)
    return _squeezed(mx.sqrt(_variance(x, axes, ddof)), axes, keepdims).astype(x.dtype)


def norm(x: mx.array, order: float = 2, axis: AxisLike = None, keepdims: bool = False) -> mx.array:
    """Return the norm of vectors along some axes, as ``torch.linalg.vector_norm``.

    Args:
        x: any shape, floating.
        order: any number, infinities included; 0 counts the elements that are not zero.
        axis: one axis or several whose elements form a vector; all by default.
        keepdims: whether they are kept with size 1.
    """
    axes = _axes(x, axis)
    magnitude = mx.abs(upcast(x))
    if math.isinf(order):
        y = (mx.max if order > 0 else mx.min)(magnitude, axis=axes, keepdims=True)
    elif order == 0:
        y = _total((magnitude != 0).astype(magnitude.dtype), axes)
    elif order == 2:
        y = mx.sqrt(_total(mx.square(magnitude), axes))
    else:
        y = _total(magnitude if order == 1 else magnitude**order, axes)
        y = y if order == 1 else y ** (1 / order)
    return _squeezed(y, axes, keepdims).astype(x.dtype)


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


def _squeezed(y: mx.array, axes: tuple[int, ...], keepdims: bool) -> mx.array:
    return y if keepdims else mx.squeeze(y, axis=axes)
