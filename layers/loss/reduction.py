"""What every loss ends in: the reduction of its terms, in the dtype PyTorch gives."""

from __future__ import annotations

import mlx.core as mx

from mlxport.layers.arrays.reduction import mean, total

REDUCTIONS = ("none", "mean", "sum")


def check_reduction(loss: str, reduction: str, allowed: tuple[str, ...] = REDUCTIONS) -> None:
    """Refuse a reduction that a loss does not have.

    Raises:
        ValueError: naming those it has.
    """
    if reduction not in allowed:
        raise ValueError(f"[{loss}] 'reduction' must be one of {allowed} but got {reduction!r}.")


def reduced(loss: str, terms: mx.array, reduction: str, dtype: mx.Dtype) -> mx.array:
    """Return the terms of a loss as they are, their mean or their sum.

    Args:
        loss: its name, for the error.
        terms: any shape; half precision widened, so that it is summed in float32.
        reduction: ``none``, ``mean`` or ``sum``; the mean of no terms is NaN.
        dtype: of the result.

    Raises:
        ValueError: there is no such reduction.
    """
    check_reduction(loss, reduction)
    if reduction == "none":
        return terms.astype(dtype)
    return (mean(terms) if reduction == "mean" else total(terms)).astype(dtype)
