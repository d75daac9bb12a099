"""Distances between vectors: ``cdist``, ``pdist``, ``pairwise_distance``, ``cosine_similarity``."""

import math

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.arrays.reduction import norm
from mlxport.layers.norm.statistics import upcast


def cdist(x: mx.array, y: mx.array, p: float = 2.0) -> mx.array:
    """Return the distances between all pairs of rows; matches ``torch.cdist``.

    Differences are computed element by element. PyTorch's default uses a matrix product for more
    than 25 rows, which loses the distances of close points.

    Args:
        x: ``(*B, P, M)``, floating.
        y: ``(*B, R, M)``; the leading axes broadcast.
        p: The norm: 0 counts the elements that differ, infinity is the largest difference.

    Returns:
        ``(*B, P, R)``; zeros where ``M`` is 0.

    Raises:
        ValueError: ``p`` is negative, or rows differ in length.
    """
    if p < 0 or x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"[cdist] inputs must be (*, P, M) and (*, R, M) and 'p' not negative "
            f"but got {x.shape}, {y.shape} and p={p}."
        )
    difference = mx.abs(x[..., :, None, :] - y[..., None, :, :])
    if difference.shape[-1] == 0:
        return mx.zeros(difference.shape[:-1], dtype=difference.dtype)
    if p == 0:
        return (difference != 0).sum(axis=-1).astype(difference.dtype)
    if p == 1:
        return difference.sum(axis=-1)
    if p == 2:
        return mx.sqrt(mx.square(difference).sum(axis=-1))
    if math.isinf(p):
        return difference.max(axis=-1)
    return (difference**p).sum(axis=-1) ** (1 / p)


def pdist(x: mx.array, p: float = 2.0) -> mx.array:
    """Return the distances between all pairs of rows of ``x``; as ``torch.nn.functional.pdist``.

    Args:
        x: ``(P, M)``, floating.
        p: the norm, as of :func:`cdist`.

    Returns:
        ``(P·(P - 1)/2,)``: those of row 0 with the rows after it, then those of row 1, and so on.
    """
    count = x.shape[0]
    if count < 2:
        return mx.zeros((0,), dtype=x.dtype)
    first = mx.array([i for i in range(count) for _ in range(i + 1, count)])
    second = mx.array([j for i in range(count) for j in range(i + 1, count)])
    return cdist(x[first][:, None], x[second][:, None], p)[:, 0, 0]


def pairwise_distance(
    x1: mx.array, x2: mx.array, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False
) -> mx.array:
    """Return the distances between corresponding rows; matches ``aten::pairwise_distance``.

    Args:
        x1: ``(*B, D)``, floating.
        x2: broadcasts with it.
        p: the norm, infinities included; 0 counts the elements that differ.
        eps: added to every difference.
        keepdims: whether the last axis is kept with size 1.

    Returns:
        ``(*B,)`` or ``(*B, 1)``. Its gradient is 0 where the distance is.
    """
    difference = upcast(x1) - upcast(x2) + eps
    distance = _norm(difference, p, axis=-1)
    y = distance if keepdims else distance.squeeze(-1)
    return y.astype(mx.result_type(x1, x2))


def cosine_similarity(x1: mx.array, x2: mx.array, axis: int = 1, eps: float = 1e-8) -> mx.array:
    """Return the cosine of the angle between vectors along an axis: ``aten::cosine_similarity``.

    Args:
        x1: any shape with the axis, floating.
        x2: broadcasts with it.
        axis: of the shape they broadcast to.
        eps: the smallest length; the gradient ignores this bound.

    Returns:
        The shape they broadcast to, without the axis.
    """
    dtype = mx.result_type(x1, x2)
    a, b = mx.broadcast_arrays(upcast(x1), upcast(x2))
    directions = []
    for x in (a, b):
        length = _norm(x, 2, axis)
        missing = mx.where(length < eps, eps - length, 0)
        directions.append(x / (length + mx.stop_gradient(missing)))
    return (directions[0] * directions[1]).sum(axis=axis).astype(dtype)


def _norm(x: mx.array, order: float, axis: int) -> mx.array:
    """Return :func:`norm` along an axis, which is kept, with gradient 0 where it is 0."""
    if order == 0 or math.isinf(order):
        return norm(x, order, axis, keepdims=True)
    zero = mx.all(x == 0, axis=axis, keepdims=True)
    length = norm(mx.where(zero, 1, x), order, axis, keepdims=True)
    return mx.where(zero, 0, length)


class PairwiseDistance(nn.Module):
    """:func:`pairwise_distance`; matches ``torch.nn.PairwiseDistance``."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False) -> None:
        super().__init__()
        self.p, self.eps, self.keepdims = p, eps, keepdims

    def _extra_repr(self) -> str:
        return f"p={self.p}, eps={self.eps}, keepdims={self.keepdims}"

    def __call__(self, x1: mx.array, x2: mx.array) -> mx.array:
        """Return the distances of the rows of two arrays."""
        return pairwise_distance(x1, x2, self.p, self.eps, self.keepdims)


class CosineSimilarity(nn.Module):
    """:func:`cosine_similarity`; matches ``torch.nn.CosineSimilarity``."""

    def __init__(self, axis: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.axis, self.eps = axis, eps

    def _extra_repr(self) -> str:
        return f"axis={self.axis}, eps={self.eps}"

    def __call__(self, x1: mx.array, x2: mx.array) -> mx.array:
        """Return the cosines of the vectors of two arrays."""
        return cosine_similarity(x1, x2, self.axis, self.eps)
