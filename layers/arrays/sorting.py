"""Sorting with values and places together, NaN as the largest, as PyTorch does."""

from __future__ import annotations

import mlx.core as mx


def sort(x: mx.array, axis: int = -1, descending: bool = False) -> tuple[mx.array, mx.array]:
    """Return values in order and their places (int64), as ``torch.sort``; equal ones keep theirs.

    Args:
        x: any shape.
        axis: the axis to sort along.
        descending: largest first.
    """
    places = argsort(x, axis, descending)
    return mx.take_along_axis(x, places, axis=axis), places


def argsort(x: mx.array, axis: int = -1, descending: bool = False) -> mx.array:
    """Return the places (int64) of the values in order, as ``torch.argsort(stable=True)``."""
    x = mx.stop_gradient(x)  # MLX would derive what is picked by these places
    if not descending:
        return mx.argsort(x, axis=axis).astype(mx.int64)
    # Turned round twice, so that equal values stay in sequence.
    reverse = mx.argsort(mx.flip(x, axis=axis), axis=axis).astype(mx.int64)
    return x.shape[axis] - 1 - mx.flip(reverse, axis=axis)


def topk(x: mx.array, k: int, axis: int = -1, largest: bool = True) -> tuple[mx.array, mx.array]:
    """Return the ``k`` largest or smallest values, in order, and their places; as ``torch.topk``.

    Args:
        x: any shape.
        k: how many, at most the length of the axis.
        axis: the axis to look along.
        largest: largest first, otherwise smallest first.
    """
    order = argsort(x, axis, descending=largest)
    places = order[(slice(None),) * (axis % x.ndim) + (slice(k),)]
    return mx.take_along_axis(x, places, axis=axis), places
