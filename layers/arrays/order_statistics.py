"""k-th value, median, mode and cumulative extremes, each with its index, as PyTorch returns them.

Indices are int64. For equal values PyTorch does not specify whose index is returned, except for
cumulative extremes: that of the last.
"""

from __future__ import annotations

import mlx.core as mx

from mlxport.layers.arrays.sorting import ascending


def kth_value(
    x: mx.array, k: int, axis: int = -1, keepdims: bool = False
) -> tuple[mx.array, mx.array]:
    """Return the ``k``-th smallest values along an axis and their indices, as ``torch.kthvalue``.

    Args:
        x: any shape with at least one axis; NaN counts as the largest.
        k: 1 for the smallest.
        axis: the axis to reduce.
        keepdims: whether it is kept with size 1.
    """
    order = ascending(x, axis)
    index = mx.take(order, mx.array([k - 1]), axis=axis)
    return _take(x, index, axis, keepdims)


def median(x: mx.array, axis: int = -1, keepdims: bool = False) -> tuple[mx.array, mx.array]:
    """Return the lower medians along an axis and their indices, as ``torch.median``.

    Where there is a NaN, that is returned, with the index of the first.
    """
    order = ascending(x, axis)
    index = mx.take(order, mx.array([(x.shape[axis] - 1) // 2]), axis=axis)
    missing = mx.isnan(x)
    first = mx.argmax(missing, axis=axis, keepdims=True)
    index = mx.where(mx.any(missing, axis=axis, keepdims=True), first, index)
    return _take(x, index, axis, keepdims)


def nanmedian(x: mx.array, axis: int = -1, keepdims: bool = False) -> tuple[mx.array, mx.array]:
    """Return the lower medians of all values but NaN, and their indices, as ``torch.nanmedian``."""
    order = ascending(x, axis)  # NaN at the end
    count = mx.sum(~mx.isnan(x), axis=axis, keepdims=True)
    index = mx.take_along_axis(order, mx.maximum(count - 1, 0) // 2, axis=axis)
    return _take(x, index, axis, keepdims)


def mode(x: mx.array, axis: int = -1, keepdims: bool = False) -> tuple[mx.array, mx.array]:
    """Return the most frequent values along an axis, the smallest of several, as ``torch.mode``.

    Args:
        x: any shape with at least one axis.
        axis: the axis to reduce.
        keepdims: whether it is kept with size 1.

    Returns:
        The values, and the index of the last of each.
    """
    axis %= x.ndim
    order = ascending(x, axis)
    ordered = mx.take_along_axis(x, order, axis=axis)
    count = x.shape[axis]
    numbers = mx.arange(count).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    begins = (numbers == 0) | (ordered != mx.roll(ordered, 1, axis))
    ends = (numbers == count - 1) | (ordered != mx.roll(ordered, -1, axis))
    start = mx.cummax(mx.where(begins, numbers, 0), axis=axis)
    length = mx.where(ends, numbers - start + 1, 0)
    longest = mx.argmax(length, axis=axis, keepdims=True)
    return _take(x, mx.take_along_axis(order, longest, axis=axis), axis, keepdims)


def cumulative_max(x: mx.array, axis: int = -1) -> tuple[mx.array, mx.array]:
    """Return the cumulative maximum along an axis and its indices, as ``torch.cummax``.

    Args:
        x: any shape with at least one axis. After a NaN every result is NaN.
        axis: the axis to accumulate along.
    """
    return _cumulative(x, mx.cummax(x, axis=axis), axis)


def cumulative_min(x: mx.array, axis: int = -1) -> tuple[mx.array, mx.array]:
    """Return the cumulative minimum along an axis and its indices, as ``torch.cummin``."""
    return _cumulative(x, mx.cummin(x, axis=axis), axis)


def _cumulative(x: mx.array, extreme: mx.array, axis: int) -> tuple[mx.array, mx.array]:
    numbers = mx.arange(x.shape[axis], dtype=mx.int64)
    numbers = numbers.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
    found = mx.where((x == extreme) | mx.isnan(x), numbers, 0)
    return extreme, mx.cummax(found, axis=axis)


def _take(x: mx.array, index: mx.array, axis: int, keepdims: bool) -> tuple[mx.array, mx.array]:
    index = mx.stop_gradient(index)  # MLX differentiates by indices, too
    value = mx.take_along_axis(x, index, axis=axis)
    index = index.astype(mx.int64)
    return (value, index) if keepdims else (value.squeeze(axis), index.squeeze(axis))
