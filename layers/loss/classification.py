"""Classification losses: cross entropy and negative log-likelihood, with PyTorch's arguments.

``mlx.nn.losses`` lacks ``ignore_index`` and the weighted mean, and reads out of bounds for a target
out of range. The class axis is PyTorch's: 1, or 0 without a batch. Half precision is computed in
float32.

PyTorch raises where a target is out of range; here that term is NaN.
"""

from __future__ import annotations

import mlx.core as mx

from mlxport.layers.activation.functions import log_softmax
from mlxport.layers.arrays.picking import take_along_axis_or_nan
from mlxport.layers.arrays.reduction import total
from mlxport.layers.loss.reduction import apply_reduction, check_reduction
from mlxport.layers.norm.statistics import upcast


def cross_entropy(
    x: mx.array,
    target: mx.array,
    weight: mx.array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> mx.array:
    """Return the cross entropy of logits; matches ``aten::cross_entropy_loss``.

    Args:
        x: logits ``(N, C, *d)`` or ``(C,)``, floating.
        target: classes, ``(N, *d)`` or ``()``, integer; or probabilities in the shape of ``x``.
        weight: of every class, ``(C,)``. With class targets the mean is divided by the sum of the
            targets' weights, with probabilities by the number of distributions.
        ignore_index: a target value that is ignored.
        reduction: ``none``, ``mean`` or ``sum``.
        label_smoothing: the part of a target that is distributed over all classes, 0 to 1.

    Returns:
        ``(N, *d)`` or ``()`` for ``none``, else ``()``.

    Raises:
        ValueError: shapes or dtypes do not fit, ``label_smoothing`` is out of range,
            ``ignore_index`` is a class beside probabilities, or the reduction is unknown.
    """
    check_label_smoothing("cross_entropy", label_smoothing)
    _check_weight("cross_entropy", x, weight)
    log_probabilities = upcast(x)
    if x.size:  # MLX has no log_softmax of nothing
        log_probabilities = log_softmax(log_probabilities, _class_axis(x))
    if target.shape == x.shape:
        if ignore_index >= 0:
            raise ValueError(
                "[cross_entropy] 'ignore_index' is not for probabilities but got "
                f"{ignore_index} beside a target of the input's shape {x.shape}."
            )
        return _soft_cross_entropy(
            log_probabilities, target, weight, reduction, label_smoothing, x.dtype
        )
    terms, weights, ignored = _weighted_terms(
        "cross_entropy", log_probabilities, target, weight, ignore_index
    )
    y = _weighted_mean("cross_entropy", terms, weights, ignored, reduction)
    if label_smoothing:
        axis = _class_axis(x)
        spread = -total(log_probabilities * _by_class(x, weight), axis) / x.shape[axis]
        spread = mx.where(ignored, 0, spread)
        even = _weighted_mean("cross_entropy", spread, weights, ignored, reduction)
        y = (1 - label_smoothing) * y + label_smoothing * even
    return y.astype(x.dtype)


def nll_loss(
    x: mx.array,
    target: mx.array,
    weight: mx.array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> mx.array:
    """Return ``-x`` at the target's class; matches ``aten::nll_loss_nd``.

    Args:
        x: log-probabilities ``(N, C, *d)`` or ``(C,)``, floating.
        target: classes, ``(N, *d)`` or ``()``, integer.
        weight: of every class, ``(C,)``; the mean is divided by the sum of the targets' weights.
        ignore_index: a target value that is ignored.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        ``(N, *d)`` or ``()`` for ``none``, else ``()``.

    Raises:
        ValueError: shapes or dtypes do not fit, or the reduction is unknown.
    """
    _check_weight("nll_loss", x, weight)
    terms, weights, ignored = _weighted_terms("nll_loss", upcast(x), target, weight, ignore_index)
    return _weighted_mean("nll_loss", terms, weights, ignored, reduction).astype(x.dtype)


def linear_cross_entropy(
    x: mx.array,
    linear_weight: mx.array,
    target: mx.array,
    linear_bias: mx.array | None = None,
    weight: mx.array | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> mx.array:
    """Map ``x`` to logits and return their cross entropy.

    Matches ``torch.nn.functional.linear_cross_entropy``.

    Args:
        x: ``(N, F)`` or ``(F,)``, floating.
        linear_weight: ``(C, *d, F)``; ``d`` is empty without a batch.
        target: classes, ``(N, *d)`` or ``()``; or probabilities, ``(N, C, *d)`` or ``(C,)``.
        linear_bias: ``(C, *d)``.
        weight: as of :func:`cross_entropy`.
        ignore_index: None stands for -100.
        reduction: ``none``, ``mean`` or ``sum``.
        label_smoothing: 0 to 1.

    Raises:
        ValueError: as :func:`cross_entropy`; or ``x`` and ``linear_weight`` differ in ``F``; or
            ``ignore_index`` is given beside probabilities.
    """
    if x.shape[-1:] != linear_weight.shape[-1:]:
        raise ValueError(
            "[linear_cross_entropy] input and 'linear_weight' must end in the same number of "
            f"features but got {x.shape} and {linear_weight.shape}."
        )
    sizes = linear_weight.shape[:-1]
    logits = x @ linear_weight.reshape(-1, linear_weight.shape[-1]).T
    if linear_bias is not None:
        logits = logits + linear_bias.reshape(-1)
    logits = logits.reshape(*x.shape[:-1], *sizes)
    if target.shape == logits.shape and ignore_index is not None:
        raise ValueError(
            "[linear_cross_entropy] 'ignore_index' is not for probabilities but got "
            f"{ignore_index} beside a target of the logits' shape {logits.shape}."
        )
    index = -100 if ignore_index is None else ignore_index
    return cross_entropy(logits, target, weight, index, reduction, label_smoothing)


def check_label_smoothing(loss: str, label_smoothing: float) -> None:
    """Check that label smoothing is from 0 to 1.

    Raises:
        ValueError: it is not from 0 to 1.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"[{loss}] 'label_smoothing' must be from 0 to 1 but got {label_smoothing}."
        )


def _class_axis(x: mx.array) -> int:
    return 1 if x.ndim > 1 else 0


def _by_class(x: mx.array, weight: mx.array | None) -> mx.array | float:
    """Return the class weights, broadcastable to ``x``."""
    if weight is None:
        return 1.0
    return upcast(weight).reshape(-1, *[1] * (x.ndim - 1 - _class_axis(x)))


def _soft_cross_entropy(
    log_probabilities: mx.array,
    target: mx.array,
    weight: mx.array | None,
    reduction: str,
    label_smoothing: float,
    dtype: mx.Dtype,
) -> mx.array:
    if not mx.issubdtype(target.dtype, mx.floating):
        raise ValueError(
            "[cross_entropy] a target of the input's shape holds probabilities and must be "
            f"floating but got {target.dtype}."
        )
    axis = _class_axis(log_probabilities)
    t = upcast(target)
    if label_smoothing:
        t = t * (1 - label_smoothing) + label_smoothing / t.shape[axis]
    terms = log_probabilities * t * _by_class(log_probabilities, weight)
    return apply_reduction("cross_entropy", -total(terms, axis), reduction, dtype)


def _weighted_terms(
    loss: str, x: mx.array, target: mx.array, weight: mx.array | None, ignore_index: int
) -> tuple[mx.array, mx.array, mx.array]:
    """Return ``-x`` at the targets times their weights, the weights, and which are ignored (0)."""
    axis = _class_axis(x)
    expected = (*x.shape[:axis], *x.shape[axis + 1 :])
    if target.shape != expected or not mx.issubdtype(target.dtype, mx.integer):
        raise ValueError(
            f"[{loss}] 'target' must hold integers of shape {expected} for input of shape "
            f"{x.shape} but got {target.dtype} of shape {target.shape}."
        )
    target = target.astype(mx.int64)  # unsigned dtypes have no -100
    ignored = target == ignore_index
    terms = -take_along_axis_or_nan(x, mx.expand_dims(target, axis), axis).squeeze(axis)
    weights = mx.ones_like(terms)
    if weight is not None:
        weights = upcast(weight)[mx.clip(target, 0, weight.size - 1)]
    return mx.where(ignored, 0, terms * weights), mx.where(ignored, 0, weights), ignored


def _weighted_mean(
    loss: str,
    terms: mx.array,
    weights: mx.array,
    ignored: mx.array,
    reduction: str,
) -> mx.array:
    check_reduction(loss, reduction)
    if reduction != "mean":
        return apply_reduction(loss, terms, reduction, terms.dtype)
    none_left = mx.all(ignored)
    y = total(terms) / mx.where(none_left, 1, total(weights))
    return mx.where(none_left, mx.nan, y)  # with gradient 0, as in PyTorch


def _check_weight(loss: str, x: mx.array, weight: mx.array | None) -> None:
    classes = (x.shape[_class_axis(x)],) if x.ndim else ()
    if x.ndim == 0 or (weight is not None and weight.shape != classes):
        raise ValueError(
            f"[{loss}] input must be (N, C, *d) or (C,) and 'weight' (C,) but got {x.shape} and "
            f"{None if weight is None else weight.shape}."
        )
