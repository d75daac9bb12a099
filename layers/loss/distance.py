"""Metric learning losses over embeddings: cosine embedding loss and triplet margin loss.

Just at a margin gradients are those of the side where the loss is not 0, as PyTorch's are up to
2.13; from 2.14 on, its own are 0 there.
"""

from __future__ import annotations

import mlx.core as mx

from mlxport.layers.arrays.distance import pairwise_distance
from mlxport.layers.loss.reduction import apply_reduction
from mlxport.layers.norm.statistics import upcast

_EPS = 1e-12


def cosine_embedding_loss(
    x1: mx.array,
    x2: mx.array,
    target: mx.array,
    margin: float = 0.0,
    reduction: str = "mean",
) -> mx.array:
    """Return ``1 - cos`` where the target is 1, ``max(0, cos - margin)`` where it is -1.

    Matches ``aten::cosine_embedding_loss``.

    Args:
        x1: ``(N, D)`` or ``(D,)``, floating.
        x2: of the same number of axes; broadcasts.
        target: ``(N,)`` or ``()``.
        margin: a cosine below which the loss is 0.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        ``(N,)`` or ``()`` for ``none``, else ``()``.

    Raises:
        ValueError: shapes do not fit, or the reduction is unknown.
    """
    if target.ndim > 1 or not x1.ndim == x2.ndim == target.ndim + 1:
        raise ValueError(
            "[cosine_embedding_loss] inputs must be (N, D) for 'target' (N,), or (D,) for () but "
            f"got {x1.shape}, {x2.shape} and {target.shape}."
        )
    a, b = upcast(x1), upcast(x2)
    lengths = (mx.square(a).sum(axis=-1) + _EPS) * (mx.square(b).sum(axis=-1) + _EPS)
    cosine = (a * b).sum(axis=-1) / mx.sqrt(lengths)
    terms = mx.where(target == 1, 1 - cosine, 0)
    terms = terms + mx.where(target == -1, mx.maximum(0, cosine - margin), 0)
    return apply_reduction("cosine_embedding_loss", terms, reduction, mx.result_type(x1, x2))


def triplet_margin_loss(
    anchor: mx.array,
    positive: mx.array,
    negative: mx.array,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> mx.array:
    """Return ``max(0, margin + d(anchor, positive) - d(anchor, negative))``.

    Matches ``aten::triplet_margin_loss``; ``d`` is :func:`pairwise_distance`.

    Args:
        anchor: ``(*B, D)``, floating; all three have as many axes and broadcast.
        positive: of the class of the anchor.
        negative: of another class.
        margin: the difference of distances from which the loss is 0.
        p: the norm of the distance.
        eps: added to differences.
        swap: whether to use the distance of positive and negative where that is smaller.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        ``(*B,)`` for ``none``, else ``()``.

    Raises:
        ValueError: the number of axes differs, ``margin`` is not positive, or the reduction
            is unknown.
    """
    if margin <= 0:
        raise ValueError(f"[triplet_margin_loss] 'margin' must be positive but got {margin}.")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ValueError(
            "[triplet_margin_loss] inputs must have as many axes but got shapes "
            f"{anchor.shape}, {positive.shape} and {negative.shape}."
        )
    a, near, far = upcast(anchor), upcast(positive), upcast(negative)
    to_far = pairwise_distance(a, far, p, eps)
    if swap:
        to_far = _lesser(to_far, pairwise_distance(near, far, p, eps))
    terms = mx.maximum(0, margin + pairwise_distance(a, near, p, eps) - to_far)
    dtype = mx.result_type(anchor, positive, negative)
    return apply_reduction("triplet_margin_loss", terms, reduction, dtype)


def _lesser(a: mx.array, b: mx.array) -> mx.array:
    """Return the minimum; equal values get half of the gradient each, as in PyTorch."""
    return mx.where(a < b, a, mx.where(b < a, b, (a + b) / 2))
