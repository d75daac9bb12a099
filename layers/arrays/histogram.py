"""Histograms, which MLX lacks."""

from __future__ import annotations

import mlx.core as mx


def histogram(x: mx.array, bins: int, low: float = 0, high: float = 0) -> mx.array:
    """Return how many values fall in each of ``bins`` bins of equal width; matches ``torch.histc``.

    The last bin includes its upper end. Values outside the range and NaN are not counted.

    Args:
        x: any shape, floating.
        bins: number of bins.
        low: lower end of the range; where both ends are equal, the least value of ``x``.
        high: upper end of the range; where both ends are equal, the largest value of ``x``.

    Returns:
        The counts, ``(bins,)`` in the dtype of ``x``.
    """
    least, largest = mx.array(low, dtype=x.dtype), mx.array(high, dtype=x.dtype)
    if low == high:
        least, largest = mx.min(x), mx.max(x)
        flat = least == largest
        least, largest = mx.where(flat, least - 1, least), mx.where(flat, largest + 1, largest)
    inside = (x >= least) & (x <= largest)
    place = mx.floor((mx.where(inside, x, least) - least) / (largest - least) * bins)
    place = mx.minimum(place, bins - 1).astype(mx.int32)
    return mx.zeros(bins, dtype=x.dtype).at[place].add(inside.astype(x.dtype))
