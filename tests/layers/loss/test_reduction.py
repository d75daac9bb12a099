"""What losses end in."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlxport.layers.loss.reduction import apply_reduction, check_reduction

TERMS = mx.array([[1.0, 2.0], [3.0, 6.0]])


@pytest.mark.parametrize(
    ("reduction", "want"), [("none", TERMS.tolist()), ("mean", 3.0), ("sum", 12.0)]
)
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16], ids=str)
def test_reductions(reduction: str, want: object, dtype: mx.Dtype) -> None:
    got = apply_reduction("loss", TERMS, reduction, dtype)
    assert (got.tolist(), got.dtype) == (want, dtype)


def test_one_term_is_its_own_mean() -> None:
    assert apply_reduction("loss", mx.array(3.0), "mean", mx.float32).shape == ()


def test_unknown_reductions_are_refused_with_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"\[MSELoss\] 'reduction' must be one of .*'none', 'mean'"
    ):
        apply_reduction("MSELoss", TERMS, "median", mx.float32)
    check_reduction("KLDivLoss", "batchmean", ("mean", "batchmean"))
