"""k-th value, median, mode and cumulative extremes with their indices, as in PyTorch; quantiles.

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


def quantile(
    x: mx.array,
    q: float | mx.array,
    axis: int | None = None,
    keepdims: bool = False,
    interpolation: str = "linear",
    ignore_nan: bool = False,
) -> mx.array:
    """Return quantiles along an axis, as ``torch.quantile`` and ``torch.nanquantile``.

    Their places among the sorted values are ``q * (length - 1)``, reckoned in the dtype of ``x``.

    Args:
        x: floating point, any shape. Where there is a NaN, the quantile is NaN.
        q: which quantiles, in [0, 1]: a number, an array without axes, or ``(M,)``. Those of an
            array that are outside are NaN, where PyTorch raises.
        axis: the axis to reduce; None for all values together.
        keepdims: whether what is reduced is kept with size 1.
        interpolation: between the two values that a place lies between: ``linear``, ``lower``,
            ``higher``, ``midpoint`` or ``nearest``; the even place of two equally near.
        ignore_nan: whether NaN counts as no value; where there is no other it is the quantile.

    Returns:
        The reduced shape; behind an axis ``(M, ...)`` for several quantiles.
    """
    shape = [1] * x.ndim
    if axis is None or x.ndim == 0:
        values = x.reshape(-1)
    else:
        values = mx.moveaxis(x, axis, -1)
        shape = [*x.shape]
        shape[axis] = 1
        if not keepdims:
            del shape[axis]
    if axis is None and not keepdims:
        shape = []
    order = mx.stop_gradient(ascending(values, -1))  # NaN at the end
    values = mx.take_along_axis(values, order, axis=-1)
    places = mx.array(q, dtype=x.dtype)
    several = places.shape
    places = places.reshape(-1)
    valid = (places >= 0) & (places <= 1)
    places = mx.where(valid, places, 0)  # MLX reads whatever lies at an index outside
    missing = mx.isnan(values)
    if ignore_nan:
        count = values.shape[-1] - mx.sum(missing, axis=-1, keepdims=True)
        last = mx.maximum(count - 1, 0).astype(x.dtype)
    else:
        last = mx.array(values.shape[-1] - 1, dtype=x.dtype)
    ranks = mx.broadcast_to(places * last, (*values.shape[:-1], places.size))
    if not ignore_nan:
        ranks = mx.where(mx.any(missing, axis=-1, keepdims=True), last, ranks)
    found = _between(values, ranks, interpolation)
    if isinstance(q, mx.array):
        found = mx.where(valid, found, mx.nan)
    return mx.moveaxis(found, -1, 0).reshape([*several, *shape])


def _between(values: mx.array, ranks: mx.array, interpolation: str) -> mx.array:
    """Interpolate in sorted values, by ``torch.lerp``'s formula; ranks from 0 to their number."""
    rounding = {"lower": mx.floor, "higher": mx.ceil, "nearest": mx.round}.get(interpolation)
    if rounding:
        return _at(values, rounding(ranks))
    below, above = _at(values, mx.floor(ranks)), _at(values, mx.ceil(ranks))
    weight = ranks - mx.floor(ranks)
    if interpolation == "midpoint":
        weight = mx.full(ranks.shape, 0.5, dtype=ranks.dtype)
    distance = above - below
    return mx.where(weight < 0.5, below + weight * distance, above - distance * (1 - weight))


def _at(values: mx.array, ranks: mx.array) -> mx.array:
    return mx.take_along_axis(values, mx.stop_gradient(ranks).astype(mx.int32), axis=-1)


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
