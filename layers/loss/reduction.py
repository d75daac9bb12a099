"""Reduce the terms of a loss by mean, sum or none, in PyTorch's dtype."""

from __future__ import annotations

import mlx.core as mx

from mlxport.layers.arrays.reduction import mean, total

REDUCTIONS = ("none", "mean", "sum")


def check_reduction(loss: str, reduction: str, allowed: tuple[str, ...] = REDUCTIONS) -> None:
    """Check that a loss has a reduction.

    Raises:
        ValueError: it has not; the error lists those it has.
    """
    if reduction not in allowed:
        raise ValueError(f"[{loss}] 'reduction' must be one of {allowed} but got {reduction!r}.")


def apply_reduction(loss: str, terms: mx.array, reduction: str, dtype: mx.Dtype) -> mx.array:
    """Return the terms of a loss, their mean or their sum.

    Args:
        loss: its name, for the error.
        terms: any shape; not half precision, so that they are summed in float32.
        reduction: ``none``, ``mean`` or ``sum``; the mean of no terms is NaN.
        dtype: of the result.

    Raises:
        ValueError: the reduction is unknown.
    """
    check_reduction(loss, reduction)
    if reduction == "none":
        return terms.astype(dtype)
    return (mean(terms) if reduction == "mean" else total(terms)).astype(dtype)
