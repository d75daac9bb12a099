"""Long sums, half precision and norms against torch in float64."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.reduction import deviation, mean, norm, total, variance

AXES = [None, 0, -1, (0, 2), (0, 1, 2)]
FUNCTIONS = {
    "mean": (mean, lambda x, d, k: x.mean(d, k)),
    "total": (total, lambda x, d, k: x.sum(d, k)),
    "variance": (variance, lambda x, d, k: x.var(d, correction=0, keepdim=k)),
    "deviation": (deviation, lambda x, d, k: x.std(d, correction=0, keepdim=k)),
    "norm": (norm, lambda x, d, k: torch.linalg.vector_norm(x, dim=d, keepdim=k)),
}


def relative(got: mx.array, want: torch.Tensor) -> float:
    assert got.shape == tuple(want.shape)
    error = np.linalg.norm(np.array(got.astype(mx.float32), dtype=np.float64) - want.numpy())
    return float(error / np.linalg.norm(want.numpy()))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_axes(name: str, axis: Any, keepdims: bool) -> None:
    ours, theirs = FUNCTIONS[name]
    x = torch.rand(3, 4, 5, dtype=torch.float64)
    got = ours(mx.array(x.float().numpy()), axis=axis, keepdims=keepdims)
    assert relative(got, theirs(x.float().double(), axis, keepdims)) < 4 * 2**-24


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_million_values(name: str) -> None:
    ours, theirs = FUNCTIONS[name]
    x = torch.rand(100, 100, 101) + 1
    got = ours(mx.array(x.numpy()))
    assert relative(got, theirs(x.double(), None, False)) < 32 * 2**-24


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_half_precision_is_summed_in_float32(name: str, dtype: mx.Dtype) -> None:
    ours, theirs = FUNCTIONS[name]
    x = torch.full((50, 60), 8.0) + torch.rand(50, 60).round()
    got = ours(mx.array(x.numpy()).astype(dtype))
    assert got.dtype == dtype
    assert relative(got, theirs(x.double(), None, False)) < 2**-8


def test_the_mean_of_float16_does_not_overflow() -> None:
    x = mx.full((1000,), 300.0, dtype=mx.float16)
    assert mean(x).item() == 300
    assert mx.mean(x).item() == float("inf")


@pytest.mark.parametrize("order", [0, 1, 2, 3, 0.5, float("inf"), -float("inf")], ids=str)
def test_norms(order: float) -> None:
    x = torch.randn(3, 4, 5)
    got = norm(mx.array(x.numpy()), order, axis=(0, 2))
    assert relative(got, torch.linalg.vector_norm(x.double(), order, (0, 2))) < 8 * 2**-24


def test_a_correction_as_large_as_the_count_gives_no_number() -> None:
    x = mx.array([1.0, 3.0])
    assert variance(x, ddof=1).item() == 2
    assert variance(x, ddof=2).item() == float("inf")
    assert np.isnan(variance(x[:1], ddof=1).item())


def test_of_nothing() -> None:
    nothing = mx.zeros((0, 3))
    assert np.array_equal(np.array(total(nothing, axis=0)), np.zeros(3))
    assert np.isnan(np.array(mean(nothing, axis=0))).all()
