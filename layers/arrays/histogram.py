"""Histogram with bins of equal width, which MLX lacks."""

from __future__ import annotations

import mlx.core as mx


def histogram(x: mx.array, bins: int, low: float = 0, high: float = 0) -> mx.array:
    """Return the number of values in each of ``bins`` bins of equal width; as ``torch.histc``.

    The last bin includes its upper end. Values outside the range and NaN are not counted.

    Args:
        x: any shape, floating.
        bins: number of bins.
        low: lower end of the range; if both ends are equal, the smallest value of ``x``.
        high: upper end of the range; if both ends are equal, the largest value of ``x``.

    Returns:
        The counts, ``(bins,)`` in the dtype of ``x``.
    """
    smallest, largest = mx.array(low, dtype=x.dtype), mx.array(high, dtype=x.dtype)
    if low == high:
        smallest, largest = mx.min(x), mx.max(x)
        flat = smallest == largest
        smallest, largest = (
            mx.where(flat, smallest - 1, smallest),
            mx.where(flat, largest + 1, largest),
        )
    inside = (x >= smallest) & (x <= largest)
    index = mx.floor((mx.where(inside, x, smallest) - smallest) / (largest - smallest) * bins)
    index = mx.minimum(index, bins - 1).astype(mx.int32)
    return mx.zeros(bins, dtype=x.dtype).at[index].add(inside.astype(x.dtype))
