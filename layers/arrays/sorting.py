"""Stable sort, argsort and top-k with PyTorch's results: NaN is the largest, indices are int64."""

from __future__ import annotations

import mlx.core as mx


def sort(x: mx.array, axis: int = -1, descending: bool = False) -> tuple[mx.array, mx.array]:
    """Return sorted values and their indices (int64), as ``torch.sort(stable=True)``.

    Args:
        x: any shape.
        axis: the axis to sort along.
        descending: whether the largest is first.
    """
    indices = argsort(x, axis, descending)
    return mx.take_along_axis(x, indices, axis=axis), indices


def argsort(x: mx.array, axis: int = -1, descending: bool = False) -> mx.array:
    """Return the indices (int64) that sort the values, as ``torch.argsort(stable=True)``."""
    x = mx.stop_gradient(x)  # MLX differentiates by indices, too
    if not descending:
        return ascending(x, axis).astype(mx.int64)
    # Flipped before and after, so that equal values keep their order.
    reverse = ascending(mx.flip(x, axis=axis), axis).astype(mx.int64)
    return x.shape[axis] - 1 - mx.flip(reverse, axis=axis)


def ascending(x: mx.array, axis: int) -> mx.array:
    """Return the indices (uint32) that sort the values, smallest first, NaN last.

    As ``mx.argsort``, also of bools on Metal, which sorts none.
    """
    return mx.argsort(x.astype(mx.uint8) if x.dtype == mx.bool_ else x, axis=axis)


def topk(x: mx.array, k: int, axis: int = -1, largest: bool = True) -> tuple[mx.array, mx.array]:
    """Return the ``k`` largest or smallest values, sorted, and their indices; as ``torch.topk``.

    Args:
        x: any shape.
        k: the number of values, at most the length of the axis.
        axis: the axis to search.
        largest: whether to return the largest values, largest first; otherwise the smallest.
    """
    order = argsort(x, axis, descending=largest)
    indices = order[(slice(None),) * (axis % x.ndim) + (slice(k),)]
    return mx.take_along_axis(x, indices, axis=axis), indices
