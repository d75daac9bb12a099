"""Margin losses over scores, classes and distances, with PyTorch's arguments and defaults.

``mlx.nn.losses`` has few of them, with other defaults. Half precision is computed in float32.
PyTorch raises where a target is out of range; here that term is NaN. Just at the margin of
`hinge_embedding_loss` and `margin_ranking_loss` gradients are those of the side where the loss is
not 0, as PyTorch's are up to 2.13; from 2.14 on, its own are 0 there.
"""

from __future__ import annotations

import mlx.core as mx

from mlxport.layers.arrays.picking import take_along_axis_or_nan
from mlxport.layers.loss.reduction import apply_reduction
from mlxport.layers.norm.statistics import upcast


def hinge_embedding_loss(
    x: mx.array, target: mx.array, margin: float = 1.0, reduction: str = "mean"
) -> mx.array:
    """Return ``x`` where the target is 1, ``max(0, margin - x)`` where it is -1.

    Matches ``aten::hinge_embedding_loss``: for any other target it is the sum of both. Shapes
    broadcast.

    Raises:
        ValueError: the reduction is unknown.
    """
    wide = upcast(x)
    far = mx.where(target != 1, mx.maximum(0, margin - wide), 0)
    near = mx.where(target != -1, wide, 0)
    return apply_reduction("hinge_embedding_loss", far + near, reduction, x.dtype)


def margin_ranking_loss(
    x1: mx.array, x2: mx.array, target: mx.array, margin: float = 0.0, reduction: str = "mean"
) -> mx.array:
    """Return ``max(0, margin - target·(x1 - x2))``; matches ``aten::margin_ranking_loss``.

    Args:
        x1: scores that should be higher where the target is 1, lower where it is -1.
        x2: scores; all three have the same number of axes and broadcast.
        target: 1 or -1.
        margin: the difference of scores from which the loss is 0.
        reduction: ``none``, ``mean`` or ``sum``.

    Raises:
        ValueError: the number of axes differs, or the reduction is unknown.
    """
    if not x1.ndim == x2.ndim == target.ndim:
        raise ValueError(
            "[margin_ranking_loss] inputs and 'target' must have as many axes but got shapes "
            f"{x1.shape}, {x2.shape} and {target.shape}."
        )
    terms = mx.maximum(0, -upcast(target) * (upcast(x1) - upcast(x2)) + margin)
    return apply_reduction("margin_ranking_loss", terms, reduction, mx.result_type(x1, x2, target))


def multi_margin_loss(
    x: mx.array,
    target: mx.array,
    p: int = 1,
    margin: float = 1.0,
    weight: mx.array | None = None,
    reduction: str = "mean",
) -> mx.array:
    """Return the multi-class hinge loss; matches ``aten::multi_margin_loss``.

    That is the mean over classes of ``w[y]·max(0, margin - x[y] + x[i])^p``, 0 for ``i = y``.

    Args:
        x: scores ``(N, C)`` or ``(C,)``, floating.
        target: classes, ``(N,)`` or ``()``, integer.
        p: 1 or 2.
        margin: the lead of the target's class from which the loss is 0.
        weight: of every class, ``(C,)``.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        ``(N,)`` or ``()`` for ``none``, else ``()``.

    Raises:
        ValueError: shapes do not fit, ``p`` is neither 1 nor 2, or the reduction is unknown.
    """
    if p not in (1, 2):
        raise ValueError(f"[multi_margin_loss] 'p' must be 1 or 2 but got {p}.")
    if x.ndim not in (1, 2) or target.shape != x.shape[:-1]:
        raise ValueError(
            "[multi_margin_loss] input must be (N, C) or (C,) and 'target' without the last axis "
            f"but got {x.shape} and {target.shape}."
        )
    wide, index = upcast(x), target.astype(mx.int64)[..., None]
    short = mx.maximum(margin - take_along_axis_or_nan(wide, index, axis=-1) + wide, 0)
    terms = mx.where(mx.arange(x.shape[-1]) != index, short if p == 1 else mx.square(short), 0)
    if weight is not None:
        terms = terms * upcast(weight)[mx.clip(index, 0, weight.size - 1)]
    return apply_reduction("multi_margin_loss", terms.mean(axis=-1), reduction, x.dtype)


def multilabel_margin_loss(x: mx.array, target: mx.array, reduction: str = "mean") -> mx.array:
    """Return the multi-label hinge loss; matches ``aten::multilabel_margin_loss``.

    That is the sum of ``max(0, 1 - x[y] + x[i])`` over targets ``y`` and classes ``i`` that are no
    targets, divided by the number of classes. It takes memory for ``N·C²`` values.

    Args:
        x: scores ``(N, C)`` or ``(C,)``, floating.
        target: classes in the same shape, integer; those from the first -1 on are ignored.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        ``(N,)`` or ``()`` for ``none``, else ``()``.

    Raises:
        ValueError: shapes do not fit, or the reduction is unknown.
    """
    if x.ndim not in (1, 2) or target.shape != x.shape:
        raise ValueError(
            "[multilabel_margin_loss] input must be (N, C) or (C,) and 'target' of that shape but "
            f"got {x.shape} and {target.shape}."
        )
    wide, target = upcast(x), target.astype(mx.int64)
    counts = mx.cumprod((target != -1).astype(mx.int32), axis=-1)[..., None] == 1
    is_target = (counts & (target[..., None] == mx.arange(x.shape[-1]))).any(axis=-2)
    of_target = take_along_axis_or_nan(wide, target, axis=-1)[..., None]
    short = mx.maximum(1 - mx.where(counts, of_target, 0) + wide[..., None, :], 0)
    terms = mx.where(counts & ~is_target[..., None, :], short, 0).sum(axis=(-2, -1))
    return apply_reduction("multilabel_margin_loss", terms / x.shape[-1], reduction, x.dtype)
