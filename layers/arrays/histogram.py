"""Histograms, which MLX lacks: of bins of equal width, or of any, counted or weighed."""

from __future__ import annotations

import mlx.core as mx

from mlxport.layers.arrays.searching import searchsorted


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


def bin_edges(
    x: mx.array, bins: int, low: float | None = None, high: float | None = None
) -> mx.array:
    """Return the edges of ``bins`` bins of equal width; as ``torch.histogram``.

    Args:
        x: any shape, floating.
        bins: number of bins.
        low: lower end of the range; the smallest value of ``x`` if None.
        high: upper end of the range; the largest value of ``x`` if None.

    Returns:
        The edges, ``(bins + 1,)`` in the dtype of ``x``; half to both sides where the ends are one.
    """
    found = x if x.size else mx.zeros(1, dtype=x.dtype)
    smallest = mx.min(found) if low is None else mx.array(low, dtype=x.dtype)
    largest = mx.max(found) if high is None else mx.array(high, dtype=x.dtype)
    margin = mx.where(smallest == largest, 0.5, 0.0).astype(x.dtype)
    smallest, largest = smallest - margin, largest + margin
    step, index = (largest - smallest) / bins, mx.arange(bins + 1)
    upwards = smallest + step * index.astype(x.dtype)
    downwards = largest - step * (bins - index).astype(x.dtype)
    return mx.where(index < (bins + 1) // 2, upwards, downwards)


def binned(
    x: mx.array, edges: mx.array, weight: mx.array | None = None, density: bool = False
) -> mx.array:
    """Return what falls between each edge and the next; as ``torch.histogram``.

    The last bin includes its upper end. Values outside and NaN are not counted.

    Args:
        x: any shape, floating.
        edges: ascending, ``(bins + 1,)``.
        weight: what each value counts, in the shape of ``x``; one if None.
        density: whether the result is divided by its sum and by the widths of the bins.

    Returns:
        The counts or sums of weights, ``(bins,)`` in the dtype of ``x``.
    """
    values, bins = x.flatten(), edges.shape[0] - 1
    inside = (values >= edges[0]) & (values <= edges[-1])
    index = mx.clip(searchsorted(edges, values, right=True) - 1, 0, bins - 1).astype(mx.int32)
    counted = inside.astype(x.dtype)
    if weight is not None:
        counted = mx.where(inside, weight.flatten(), 0.0)
    found = mx.zeros(bins, dtype=x.dtype).at[index].add(counted)
    return found / (mx.sum(found) * (edges[1:] - edges[:-1])) if density else found
