"""Take elements along an axis by indices that may be out of range."""

from __future__ import annotations

import mlx.core as mx


def take_along_axis_or_nan(x: mx.array, index: mx.array, axis: int) -> mx.array:
    """Return ``mx.take_along_axis``, but NaN for indices out of range, negative ones included.

    Args:
        x: any shape, floating.
        index: integers, with the same number of axes.
        axis: the axis that is indexed.
    """
    index = index.astype(mx.int64)  # a comparison of unsigned integers would wrap
    inside = (index >= 0) & (index < x.shape[axis])
    return mx.where(inside, mx.take_along_axis(x, mx.where(inside, index, 0), axis), mx.nan)
