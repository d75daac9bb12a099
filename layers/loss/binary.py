"""Binary classification losses: binary cross entropy and soft margin, with PyTorch's arguments.

``mlx.nn.losses`` lacks ``pos_weight`` and PyTorch's gradient at 0 and 1. Half precision is computed
in float32.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.loss.reduction import apply_reduction
from mlxport.layers.norm.statistics import upcast


def binary_cross_entropy(
    x: mx.array, target: mx.array, weight: mx.array | None = None, reduction: str = "mean"
) -> mx.array:
    """Return the cross entropy of probabilities; matches ``aten::binary_cross_entropy``.

    Logarithms are at least -100. PyTorch raises where ``x`` is not from 0 to 1; here that is NaN.

    Args:
        x: probabilities, any shape.
        target: probabilities, of the same shape.
        weight: broadcast to it.
        reduction: ``none``, ``mean`` or ``sum``.

    Raises:
        ValueError: shapes differ, or the reduction is unknown.
    """
    _check_same_shape("binary_cross_entropy", x, target)
    wide = upcast(x)
    terms: Any = _binary_cross_entropy(wide, target.astype(wide.dtype))
    terms = terms if weight is None else terms * upcast(weight)
    return apply_reduction("binary_cross_entropy", terms, reduction, x.dtype)


def binary_cross_entropy_with_logits(
    x: mx.array,
    target: mx.array,
    weight: mx.array | None = None,
    pos_weight: mx.array | None = None,
    reduction: str = "mean",
) -> mx.array:
    """Return the cross entropy of logits; matches ``aten::binary_cross_entropy_with_logits``.

    Args:
        x: logits, any shape.
        target: probabilities, of the same shape.
        weight: broadcast to it.
        pos_weight: weight of the positive class, broadcast to it.
        reduction: ``none``, ``mean`` or ``sum``.

    Raises:
        ValueError: shapes differ, or the reduction is unknown.
    """
    _check_same_shape("binary_cross_entropy_with_logits", x, target)
    wide, t = upcast(x), upcast(target)
    positive = 1 if pos_weight is None else (upcast(pos_weight) - 1) * t + 1
    terms = (1 - t) * wide - positive * nn.log_sigmoid(wide)
    terms = terms if weight is None else terms * upcast(weight)
    return apply_reduction("binary_cross_entropy_with_logits", terms, reduction, x.dtype)


def soft_margin_loss(x: mx.array, target: mx.array, reduction: str = "mean") -> mx.array:
    """Return ``log(1 + exp(-target·x))`` for targets 1 and -1; matches ``aten::soft_margin_loss``.

    Shapes broadcast. The result is finite where the exponential overflows; PyTorch's is not.

    Raises:
        ValueError: the reduction is unknown.
    """
    terms = mx.logaddexp(-upcast(target) * upcast(x), 0)
    return apply_reduction("soft_margin_loss", terms, reduction, mx.result_type(x, target))


def multilabel_soft_margin_loss(
    x: mx.array, target: mx.array, weight: mx.array | None = None, reduction: str = "mean"
) -> mx.array:
    """Return the mean over classes of the cross entropy of logits.

    Matches ``torch.nn.functional.multilabel_soft_margin_loss``.

    Args:
        x: logits ``(*B, C)``.
        target: 1 for every class that applies, else 0; broadcasts.
        weight: of every class, broadcast to it.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        ``(*B,)`` for ``none``, else ``()``.

    Raises:
        ValueError: the reduction is unknown.
    """
    wide, t = upcast(x), upcast(target)
    terms = -(t * nn.log_sigmoid(wide) + (1 - t) * nn.log_sigmoid(-wide))
    terms = terms if weight is None else terms * upcast(weight)
    return apply_reduction("multilabel_soft_margin_loss", terms.mean(axis=-1), reduction, x.dtype)


def _check_same_shape(loss: str, x: mx.array, target: mx.array) -> None:
    if x.shape != target.shape:
        raise ValueError(
            f"[{loss}] 'target' must have the input's shape {x.shape} but got {target.shape}."
        )


@mx.custom_function
def _binary_cross_entropy(x: mx.array, target: mx.array) -> mx.array:
    return -target * mx.maximum(mx.log(x), -100) - (1 - target) * mx.maximum(mx.log1p(-x), -100)


@_binary_cross_entropy.vjp
def _(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, output: Any
) -> tuple[mx.array, mx.array]:
    """Return PyTorch's gradient: by ``x`` it is finite where the logarithm is not."""
    x, target = primals
    by_x = (x - target) / mx.maximum((1 - x) * x, 1e-12)
    return cotangent * by_x, cotangent * (mx.log1p(-x) - mx.log(x))
