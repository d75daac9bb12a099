"""The value of a given rank, the commonest value, running extremes: with their places, as PyTorch.

Places are int64. Of equal values PyTorch leaves open which one's place is given, except for running
extremes, where it is the last one's.
"""

from __future__ import annotations

import mlx.core as mx


def kth_value(
    x: mx.array, k: int, axis: int = -1, keepdims: bool = False
) -> tuple[mx.array, mx.array]:
    """Return the ``k``-th smallest values along an axis and their places, as ``torch.kthvalue``.

    Args:
        x: any shape with at least one axis; NaN counts as the largest.
        k: 1 for the smallest.
        axis: the axis to look along.
        keepdims: whether it stays with size 1.
    """
    places = mx.argsort(x, axis=axis)
    place = mx.take(places, mx.array([k - 1]), axis=axis)
    return _picked(x, place, axis, keepdims)


def median(x: mx.array, axis: int = -1, keepdims: bool = False) -> tuple[mx.array, mx.array]:
    """Return the lower medians along an axis and their places, as ``torch.median``.

    NaN, and the place of the first, where there is one.
    """
    places = mx.argsort(x, axis=axis)
    place = mx.take(places, mx.array([(x.shape[axis] - 1) // 2]), axis=axis)
    missing = mx.isnan(x)
    first = mx.argmax(missing, axis=axis, keepdims=True)
    place = mx.where(mx.any(missing, axis=axis, keepdims=True), first, place)
    return _picked(x, place, axis, keepdims)


def nanmedian(x: mx.array, axis: int = -1, keepdims: bool = False) -> tuple[mx.array, mx.array]:
    """Return the lower medians of what is not NaN, and their places, as ``torch.nanmedian``."""
    places = mx.argsort(x, axis=axis)  # NaN at the end
    count = mx.sum(~mx.isnan(x), axis=axis, keepdims=True)
    place = mx.take_along_axis(places, mx.maximum(count - 1, 0) // 2, axis=axis)
    return _picked(x, place, axis, keepdims)


def mode(x: mx.array, axis: int = -1, keepdims: bool = False) -> tuple[mx.array, mx.array]:
    """Return the commonest values along an axis, the smallest of several, as ``torch.mode``.

    Args:
        x: any shape with at least one axis.
        axis: the axis to look along.
        keepdims: whether it stays with size 1.

    Returns:
        The values, and the place of the last of each.
    """
    axis %= x.ndim
    places = mx.argsort(x, axis=axis)
    ordered = mx.take_along_axis(x, places, axis=axis)
    count = x.shape[axis]
    numbers = mx.arange(count).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    begins = (numbers == 0) | (ordered != mx.roll(ordered, 1, axis))
    ends = (numbers == count - 1) | (ordered != mx.roll(ordered, -1, axis))
    start = mx.cummax(mx.where(begins, numbers, 0), axis=axis)
    length = mx.where(ends, numbers - start + 1, 0)
    longest = mx.argmax(length, axis=axis, keepdims=True)
    return _picked(x, mx.take_along_axis(places, longest, axis=axis), axis, keepdims)


def cumulative_max(x: mx.array, axis: int = -1) -> tuple[mx.array, mx.array]:
    """Return the largest value so far along an axis and its place, as ``torch.cummax``.

    Args:
        x: any shape with at least one axis. Behind a NaN all is NaN.
        axis: the axis to run along.
    """
    return _running(x, mx.cummax(x, axis=axis), axis)


def cumulative_min(x: mx.array, axis: int = -1) -> tuple[mx.array, mx.array]:
    """Return the smallest value so far along an axis and its place, as ``torch.cummin``."""
    return _running(x, mx.cummin(x, axis=axis), axis)


def _running(x: mx.array, extreme: mx.array, axis: int) -> tuple[mx.array, mx.array]:
    numbers = mx.arange(x.shape[axis], dtype=mx.int64)
    numbers = numbers.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
    found = mx.where((x == extreme) | mx.isnan(x), numbers, 0)
    return extreme, mx.cummax(found, axis=axis)


def _picked(x: mx.array, place: mx.array, axis: int, keepdims: bool) -> tuple[mx.array, mx.array]:
    place = mx.stop_gradient(place)  # MLX would derive by it
    value = mx.take_along_axis(x, place, axis=axis)
    place = place.astype(mx.int64)
    return (value, place) if keepdims else (value.squeeze(axis), place.squeeze(axis))
