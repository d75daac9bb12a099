"""Losses that ask for a margin: between scores, between classes, between distances.

``mlx.nn.losses`` has few of them and other defaults; arguments and defaults here are PyTorch's.
Half precision is computed in float32. PyTorch raises where the index of a class is out of range;
here that term is NaN.
"""

from __future__ import annotations

import mlx.core as mx

from mlxport.layers.arrays.picking import picked
from mlxport.layers.loss.reduction import reduced
from mlxport.layers.norm.statistics import upcast


def hinge_embedding_loss(
    x: mx.array, target: mx.array, margin: float = 1.0, reduction: str = "mean"
) -> mx.array:
    """``x`` where the target is 1, ``max(0, margin - x)`` where it is -1.

    Matches ``aten::hinge_embedding_loss``: any other target adds the two. Shapes broadcast.

    Raises:
        ValueError: there is no such reduction.
    """
    wide = upcast(x)
    far = mx.where(target != 1, mx.maximum(0, margin - wide), 0)
    near = mx.where(target != -1, wide, 0)
    return reduced("hinge_embedding_loss", far + near, reduction, x.dtype)


def margin_ranking_loss(
    x1: mx.array, x2: mx.array, target: mx.array, margin: float = 0.0, reduction: str = "mean"
) -> mx.array:
    """``max(0, margin - target·(x1 - x2))``; matches ``aten::margin_ranking_loss``.

    Args:
        x1: scores to be the higher where the target is 1, the lower where it is -1.
        x2: scores; all three have as many axes and broadcast.
        target: 1 or -1.
        margin: by how much.
        reduction: ``none``, ``mean`` or ``sum``.

    Raises:
        ValueError: the number of axes differs, or there is no such reduction.
    """
    if not x1.ndim == x2.ndim == target.ndim:
        raise ValueError(
            "[margin_ranking_loss] inputs and 'target' must have as many axes but got shapes "
            f"{x1.shape}, {x2.shape} and {target.shape}."
        )
    terms = mx.maximum(0, -upcast(target) * (upcast(x1) - upcast(x2)) + margin)
    return reduced("margin_ranking_loss", terms, reduction, mx.result_type(x1, x2, target))


def multi_margin_loss(
    x: mx.array,
    target: mx.array,
    p: int = 1,
    margin: float = 1.0,
    weight: mx.array | None = None,
    reduction: str = "mean",
) -> mx.array:
    """How far other classes come within a margin of the target's; ``aten::multi_margin_loss``.

    The mean over classes of ``w[y]·max(0, margin - x[y] + x[i])^p``, nothing for ``i = y``.

    Args:
        x: scores ``(N, C)`` or ``(C,)``, floating.
        target: classes, ``(N,)`` or ``()``, integer.
        p: 1 or 2.
        margin: by how much the target's class is to be ahead.
        weight: of every class, ``(C,)``.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        ``(N,)`` or ``()`` for ``none``, else ``()``.

    Raises:
        ValueError: shapes do not fit, ``p`` is another, or there is no such reduction.
    """
    if p not in (1, 2):
        raise ValueError(f"[multi_margin_loss] 'p' must be 1 or 2 but got {p}.")
    if x.ndim not in (1, 2) or target.shape != x.shape[:-1]:
        raise ValueError(
            "[multi_margin_loss] input must be (N, C) or (C,) and 'target' without the last axis "
            f"but got {x.shape} and {target.shape}."
        )
    wide, place = upcast(x), target.astype(mx.int64)[..., None]
    short = mx.maximum(margin - picked(wide, place, axis=-1) + wide, 0)
    terms = mx.where(mx.arange(x.shape[-1]) != place, short if p == 1 else mx.square(short), 0)
    if weight is not None:
        terms = terms * upcast(weight)[mx.clip(place, 0, weight.size - 1)]
    return reduced("multi_margin_loss", terms.mean(axis=-1), reduction, x.dtype)


def multilabel_margin_loss(x: mx.array, target: mx.array, reduction: str = "mean") -> mx.array:
    """How far other classes come within 1 of a target's; matches ``aten::multilabel_margin_loss``.

    The sum of ``max(0, 1 - x[y] + x[i])`` over targets ``y`` and classes ``i`` that are none, over
    the number of classes. Takes memory for ``N·C²`` values.

    Args:
        x: scores ``(N, C)`` or ``(C,)``, floating.
        target: classes in the same shape, integer; those from the first -1 on do not count.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        ``(N,)`` or ``()`` for ``none``, else ``()``.

    Raises:
        ValueError: shapes do not fit, or there is no such reduction.
    """
    if x.ndim not in (1, 2) or target.shape != x.shape:
        raise ValueError(
            "[multilabel_margin_loss] input must be (N, C) or (C,) and 'target' of that shape but "
            f"got {x.shape} and {target.shape}."
        )
    wide, target = upcast(x), target.astype(mx.int64)
    counts = mx.cumprod((target != -1).astype(mx.int32), axis=-1)[..., None] == 1
    named = (counts & (target[..., None] == mx.arange(x.shape[-1]))).any(axis=-2)
    own = picked(wide, target, axis=-1)[..., None]
    short = mx.maximum(1 - mx.where(counts, own, 0) + wide[..., None, :], 0)
    terms = mx.where(counts & ~named[..., None, :], short, 0).sum(axis=(-2, -1))
    return reduced("multilabel_margin_loss", terms / x.shape[-1], reduction, x.dtype)
