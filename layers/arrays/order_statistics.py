"""k-th value, median, mode and cumulative extremes with their indices, as in PyTorch; quantiles.

Indices are int64. For equal values PyTorch does not specify whose index is returned, except for
cumulative extremes: that of the last.
"""

from __future__ import annotations

from typing import NamedTuple

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
    exact_places: bool = False,
) -> mx.array:
    """Return quantiles along an axis, as ``torch.quantile`` and ``torch.nanquantile``.

    Their places among the sorted values are ``q * (length - 1)``, rounded to the dtype of ``x``
    as PyTorch 2.13 does, or exact, as in float64, where 2.14 computes them.

    Args:
        x: floating point, any shape. Where there is a NaN, the quantile is NaN.
        q: which quantiles, in [0, 1]: a number, an array without axes, or ``(M,)``. Those of an
            array that are outside are NaN, where PyTorch raises.
        axis: the axis to reduce; None for all values together.
        keepdims: whether what is reduced is kept with size 1.
        interpolation: between the two values that a place lies between: ``linear``, ``lower``,
            ``higher``, ``midpoint`` or ``nearest``; the even place of two equally near.
        ignore_nan: whether NaN counts as no value; where there is no other it is the quantile.
        exact_places: whether the places are not rounded. ``q`` itself is, to the dtype of ``x``.

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
    last = mx.array(values.shape[-1] - 1)
    if ignore_nan:
        last = mx.maximum(last - mx.sum(missing, axis=-1, keepdims=True), 0)
    else:  # the last value is NaN, and so is whatever it has a part in
        places = mx.where(mx.any(missing, axis=-1, keepdims=True), 1, places)
    places = mx.broadcast_to(places, (*values.shape[:-1], places.shape[-1]))
    ranks = (_exact_ranks if exact_places else _rounded_ranks)(places, last, values.shape[-1])
    found = _between(values, ranks, interpolation)
    if isinstance(q, mx.array):
        found = mx.where(valid, found, mx.nan)
    return mx.moveaxis(found, -1, 0).reshape([*several, *shape])


class _Ranks(NamedTuple):
    """Where quantiles are among sorted values: between the ranks ``below`` and ``above``."""

    below: mx.array  # int64
    above: mx.array  # int64; ``below`` itself where a quantile is just there
    nearest: mx.array  # int64; the even one of two equally near
    weight: mx.array  # floating, of the value above


def _rounded_ranks(places: mx.array, last: mx.array, length: int) -> _Ranks:
    """Return the ranks ``places * last``, rounded to the dtype of ``places``."""
    ranks = places * last.astype(places.dtype)
    below, above, nearest = (
        mx.stop_gradient(rounding(ranks)) for rounding in (mx.floor, mx.ceil, mx.round)
    )
    return _Ranks(
        below.astype(mx.int64), above.astype(mx.int64), nearest.astype(mx.int64), ranks - below
    )


def _exact_ranks(places: mx.array, last: mx.array, length: int) -> _Ranks:
    """Return the ranks ``places * last`` by fixed point; MLX has no float64 on a GPU."""
    bits = 62 - length.bit_length()
    unit = 2.0**bits
    fixed = (places * unit).astype(mx.int64)
    tail = places - fixed.astype(places.dtype) / unit  # of places too small to be whole units
    product = fixed * last.astype(mx.int64)
    below = product >> bits
    part, half = product - (below << bits), mx.array(1 << (bits - 1), dtype=mx.int64)
    past_half = (part > half) | ((part == half) & ((tail > 0) | (below % 2 == 1)))
    ranks = places * last.astype(places.dtype)
    weight = part.astype(places.dtype) / unit + tail * last
    return _Ranks(
        below,
        above=below + (weight > 0),
        nearest=below + past_half,
        # The gradient is that of the product.
        weight=mx.stop_gradient(weight) + (ranks - mx.stop_gradient(ranks)),
    )


def _between(values: mx.array, ranks: _Ranks, interpolation: str) -> mx.array:
    """Interpolate in sorted values, by ``torch.lerp``'s formula."""
    one = {"lower": ranks.below, "higher": ranks.above, "nearest": ranks.nearest}
    if interpolation in one:
        return _at(values, one[interpolation])
    weight = ranks.weight
    if interpolation == "midpoint":
        weight = mx.full(weight.shape, 0.5, dtype=weight.dtype)
    below, above = _at(values, ranks.below), _at(values, ranks.above)
    distance = above - below
    return mx.where(weight < 0.5, below + weight * distance, above - distance * (1 - weight))


def _at(values: mx.array, ranks: mx.array) -> mx.array:
    return mx.take_along_axis(values, mx.stop_gradient(ranks), axis=-1)


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
