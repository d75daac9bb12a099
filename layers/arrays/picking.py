"""Elements picked by an index that is not trusted."""

from __future__ import annotations

import mlx.core as mx


def picked(x: mx.array, index: mx.array, axis: int) -> mx.array:
    """``mx.take_along_axis``, but NaN where the index is out of range, as negative ones are.

    Args:
        x: any shape, floating.
        index: of as many axes, integer.
        axis: the axis that the index runs along.
    """
    index = index.astype(mx.int64)  # unsigned ones compare otherwise
    inside = (index >= 0) & (index < x.shape[axis])
    return mx.where(inside, mx.take_along_axis(x, mx.where(inside, index, 0), axis), mx.nan)
