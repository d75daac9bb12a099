"""Regression and likelihood losses, with PyTorch's arguments and defaults.

``mlx.nn.losses`` reduces by ``none`` by default and lacks some of PyTorch's arguments. Input and
target broadcast; half precision is computed in float32. The result has the broadcast shape for
``reduction="none"``, otherwise ``()``.
"""

from __future__ import annotations

import math

import mlx.core as mx

from mlxport.layers.loss.reduction import REDUCTIONS, apply_reduction, check_reduction
from mlxport.layers.norm.statistics import upcast


def l1_loss(x: mx.array, target: mx.array, reduction: str = "mean") -> mx.array:
    """Return ``|x - target|``, of complex values too; matches ``aten::l1_loss``.

    Raises:
        ValueError: the reduction is unknown.
    """
    terms = mx.abs(upcast(x) - upcast(target))
    dtype = mx.result_type(x, target)
    return apply_reduction(
        "l1_loss", terms, reduction, terms.dtype if dtype == mx.complex64 else dtype
    )


def mse_loss(x: mx.array, target: mx.array, reduction: str = "mean") -> mx.array:
    """Return ``(x - target)²``; matches ``aten::mse_loss``.

    Raises:
        ValueError: the reduction is unknown.
    """
    terms = mx.square(upcast(x) - upcast(target))
    return apply_reduction("mse_loss", terms, reduction, mx.result_type(x, target))


def smooth_l1_loss(
    x: mx.array, target: mx.array, reduction: str = "mean", beta: float = 1.0
) -> mx.array:
    """Return ``d² / (2·beta)`` for a distance ``d`` below ``beta``, ``d - beta/2`` above.

    Matches ``torch.nn.functional.smooth_l1_loss``; at ``beta=0`` it is :func:`l1_loss`.

    Raises:
        ValueError: ``beta`` is negative, or the reduction is unknown.
    """
    if beta < 0:
        raise ValueError(f"[smooth_l1_loss] 'beta' must not be negative but got {beta}.")
    if beta == 0:
        return l1_loss(x, target, reduction)
    curved, straight = _split_distance(x, target, beta)
    terms = mx.square(curved) * (0.5 / beta) + straight
    return apply_reduction("smooth_l1_loss", terms, reduction, mx.result_type(x, target))


def huber_loss(
    x: mx.array, target: mx.array, reduction: str = "mean", delta: float = 1.0
) -> mx.array:
    """Return ``d²/2`` for a distance ``d`` below ``delta``, ``delta·(d - delta/2)`` above.

    Matches ``aten::huber_loss``.

    Raises:
        ValueError: ``delta`` is not positive, or the reduction is unknown.
    """
    if delta <= 0:
        raise ValueError(f"[huber_loss] 'delta' must be positive but got {delta}.")
    curved, straight = _split_distance(x, target, delta)
    terms = 0.5 * mx.square(curved) + delta * straight
    return apply_reduction("huber_loss", terms, reduction, mx.result_type(x, target))


def _split_distance(x: mx.array, target: mx.array, at: float) -> tuple[mx.array, mx.array]:
    """Return the distance up to ``at``, and the rest: without a branch that could overflow."""
    distance = mx.abs(upcast(x) - upcast(target))
    below = mx.minimum(distance, at)
    return below, distance - below


def kl_div(
    x: mx.array, target: mx.array, reduction: str = "mean", log_target: bool = False
) -> mx.array:
    """Return ``target·(log target - x)`` for log-probabilities ``x``; matches ``aten::kl_div``.

    Args:
        x: log-probabilities, any shape.
        target: probabilities, or their logarithms with ``log_target``.
        reduction: also ``batchmean``: the sum over the size of the first axis.
        log_target: whether ``target`` holds logarithms.

    Raises:
        ValueError: the reduction is unknown.
    """
    check_reduction("kl_div", reduction, (*REDUCTIONS, "batchmean"))
    wide, t = upcast(x), upcast(target)
    if log_target:
        terms = mx.exp(t) * (t - wide)
    else:
        certain = mx.where(t == 0, 1, t)  # 0·log 0 is 0
        terms = mx.where(t == 0, 0, t * mx.log(certain)) - t * wide
    dtype = mx.result_type(x, target)
    if reduction != "batchmean":
        return apply_reduction("kl_div", terms, reduction, dtype)
    sum_of_all = apply_reduction("kl_div", terms, "sum", terms.dtype)
    return (sum_of_all / x.shape[0] if x.ndim else sum_of_all).astype(dtype)


def poisson_nll_loss(
    x: mx.array,
    target: mx.array,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> mx.array:
    """Return the negative log-likelihood of Poisson counts; matches ``aten::poisson_nll_loss``.

    Args:
        x: the logarithm of the rate, or with ``log_input=False`` the rate itself.
        target: the counts.
        log_input: whether ``x`` is the logarithm.
        full: add Stirling's term for counts above 1.
        eps: added to a rate before its logarithm is taken.
        reduction: ``none``, ``mean`` or ``sum``.

    Raises:
        ValueError: the reduction is unknown.
    """
    rate, count = upcast(x), upcast(target)
    logarithm = rate if log_input else mx.log(rate + eps)
    terms = (mx.exp(rate) if log_input else rate) - count * logarithm
    if full:
        stirling = count * mx.log(count) - count + 0.5 * mx.log(2 * math.pi * count)
        terms = terms + mx.where(count > 1, stirling, 0.0)
    return apply_reduction("poisson_nll_loss", terms, reduction, mx.result_type(x, target))


def gaussian_nll_loss(
    x: mx.array,
    target: mx.array,
    var: mx.array | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> mx.array:
    """Return the negative log-likelihood of values; as ``torch.nn.functional.gaussian_nll_loss``.

    Where a variance is negative, which PyTorch refuses, the result is NaN.

    Args:
        x: the expected values.
        target: the values.
        var: their variances: one for all, of the shape of ``x``, with size 1 on one axis, or
            without the last axis.
        full: add the constant ``log(2π)/2``.
        eps: the smallest variance; the gradient ignores this bound.
        reduction: ``none``, ``mean`` or ``sum``.

    Raises:
        ValueError: the shape of ``var`` does not fit, or it is one negative number; there is no
            such reduction.
    """
    if isinstance(var, mx.array):
        dtype = mx.result_type(x, target, var)
        variance = upcast(_per_element(x, var))
    elif var >= 0:
        dtype = mx.result_type(x, target)
        variance = mx.full((), var, upcast(x).dtype)
    else:
        raise ValueError(f"[gaussian_nll_loss] 'var' must not be negative but got {var}.")
    missing = mx.where(variance < eps, eps - variance, 0)
    variance = variance + mx.stop_gradient(mx.where(variance < 0, mx.nan, missing))
    terms = 0.5 * (mx.log(variance) + mx.square(upcast(x) - upcast(target)) / variance)
    if full:
        terms = terms + 0.5 * math.log(2 * math.pi)
    return apply_reduction("gaussian_nll_loss", terms, reduction, dtype)


def _per_element(x: mx.array, var: mx.array) -> mx.array:
    if var.shape == x.shape:
        return var
    if var.shape == x.shape[:-1]:
        return var[..., None]
    differing = [v for n, v in zip(x.shape, var.shape, strict=False) if n != v]
    if var.ndim == x.ndim and differing == [1]:
        return var
    raise ValueError(
        f"[gaussian_nll_loss] 'var' must have the input's shape {x.shape}, size 1 on one axis of "
        f"it, or lack the last, but got {var.shape}."
    )
