"""Fractional max pooling against torch, given the same random samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers import FractionalMaxPool2d
from mlxport.layers.pooling.fractional import fractional_max_pool


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int]:
    """Kernel, outputs and input size of one axis."""
    kernel, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    return kernel, outputs, outputs + kernel - 1 + draw(st.integers(0, 9))


def both(
    x: torch.Tensor, kernel: Any, outputs: Any, samples: torch.Tensor
) -> tuple[list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
    """Maxima and indices of MLX, channels first, and of torch."""
    rank = len(kernel)
    pool = F.fractional_max_pool2d if rank == 2 else F.fractional_max_pool3d
    want = pool(x, kernel, outputs, return_indices=True, _random_samples=samples)
    got = fractional_max_pool(
        mx.array(x.movedim(-rank - 1, -1).numpy()), kernel, outputs, mx.array(samples.numpy())
    )
    return [np.moveaxis(np.array(y), -1, -rank - 1) for y in got], [y.numpy() for y in want]


@given(st.lists(axes(), min_size=2, max_size=3), st.booleans(), st.integers(0, 1000))
def test_same_windows(given: list[tuple[int, int, int]], batched: bool, seed: int) -> None:
    torch.manual_seed(seed)
    kernel, outputs, sizes = zip(*given, strict=True)
    if len(given) == 3:  # where PyTorch wants an element more than the windows need
        sizes = tuple(size + 1 for size in sizes)
    x = torch.randn(*((2,) if batched else ()), 3, *sizes)
    samples = torch.rand(2 if batched else 1, 3, len(sizes))
    got, want = both(x, kernel, outputs, samples)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("value", [0.0, float("nan"), -float("inf")], ids=str)
def test_equal_maxima_and_nan(value: float) -> None:
    x = torch.randn(1, 2, 9, 9)
    x[torch.rand(x.shape) < 0.5] = value
    got, want = both(x, (3, 2), (4, 4), torch.rand(1, 2, 2))
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


def test_samples_of_more_than_the_batch() -> None:
    got, want = both(torch.randn(2, 3, 8, 8), (2, 2), (4, 5), torch.rand(5, 3, 2))
    np.testing.assert_array_equal(got[1], want[1])


def test_gradient_goes_to_the_maximum() -> None:
    x, samples = mx.random.normal((1, 7, 8, 2)), mx.random.uniform(shape=(1, 2, 2))

    def pooled(x: mx.array) -> mx.array:
        return fractional_max_pool(x, (2, 2), (3, 3), samples)[0]

    gradient = mx.grad(lambda x: pooled(x).sum())(x)
    assert gradient.sum().item() == 18
    assert mx.allclose((gradient * x).sum(), pooled(x).sum(), rtol=1e-5)


X = mx.zeros((2, 6, 6, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fractional_max_pool(X, (2, 2), (6, 3)), "each needs output"),
        (lambda: fractional_max_pool(X, (2, 0), (3, 3)), "'kernel_size' must be positive"),
        (lambda: fractional_max_pool(X, (2, 2), (3,) * 3), "'output_size' must be an integer"),
        (lambda: fractional_max_pool(X[0, 0], (2, 2), (3, 3)), "input must have 4 dimensions"),
        (
            lambda: fractional_max_pool(X, (2, 2), (3, 3), mx.zeros((1, 3, 2))),
            r"'random_samples' must be \(2, 3, 2\)",
        ),
        (lambda: FractionalMaxPool2d(2), "needs one of 'output_size' and 'output_ratio'"),
        (lambda: FractionalMaxPool2d(2, 3, 0.5), "needs one of"),
        (lambda: FractionalMaxPool2d(2, output_ratio=1.0), "between 0 and 1"),
        (lambda: FractionalMaxPool2d(2, output_ratio=(0.5,)), "a tuple of 2"),
    ],
    ids=["size", "kernel", "outputs", "axes", "samples", "none", "both", "ratio", "ratios"],
)
def test_refuses(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
