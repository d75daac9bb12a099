"""Losses between values where rules' tests do not reach: broadcasting, overflow, odd variances."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlxport import layers
from mlxport.layers.loss.regression import (
    gaussian_nll_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    poisson_nll_loss,
    smooth_l1_loss,
)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", ["L1Loss", "MSELoss", "SmoothL1Loss", "HuberLoss"])
def test_shapes_broadcast(assert_module_parity: Callable[..., None], name: str) -> None:
    x, target = torch.randn(4, 1, 5), torch.randn(3, 1)
    assert_module_parity(getattr(torch.nn, name)(), getattr(layers, name)(), x, target)


@pytest.mark.parametrize("name", ["SmoothL1Loss", "HuberLoss"])
def test_distances_that_no_square_holds(
    assert_module_parity: Callable[..., None], name: str
) -> None:
    x = torch.tensor([0.0, 0.5, 1.0, -1.0, 1e30, -1e30, torch.inf, -torch.inf, torch.nan])
    module, layer = getattr(torch.nn, name)(reduction="none"), getattr(layers, name)("none")
    assert_module_parity(module, layer, x, torch.zeros(9))


def test_means_of_half_precision_do_not_overflow() -> None:
    x = mx.full((100, 1000), 200.0, mx.float16)
    assert mse_loss(x, mx.zeros_like(x)).item() == 40000


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_absolute_differences_in_half_precision(
    assert_parity: Callable[..., None], dtype: torch.dtype, reduction: str
) -> None:
    x, target = torch.randn(3, 4).to(dtype), torch.randn(3, 4).to(dtype)
    got = l1_loss(mx.array(x), mx.array(target), reduction)
    assert_parity(got, lambda x, t: F.l1_loss(x, t, reduction=reduction), x, target)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_absolute_differences_of_complex_values_are_real(reduction: str) -> None:
    x, target = torch.randn(2, 3, 4, dtype=torch.complex64)
    got = l1_loss(mx.array(x), mx.array(target), reduction)
    want = F.l1_loss(x, target, reduction=reduction)
    torch.testing.assert_close(torch.tensor(np.array(got)), want)


@pytest.mark.parametrize("loss", [l1_loss, mse_loss, smooth_l1_loss, huber_loss])
def test_mean_of_nothing_is_nan(loss: Callable[..., mx.array]) -> None:
    assert mx.isnan(loss(mx.zeros((0, 3)), mx.zeros((0, 3)))).item()
    assert loss(mx.zeros((0, 3)), mx.zeros((0, 3)), "sum").item() == 0


def test_probability_0_costs_nothing(assert_parity: Callable[..., None]) -> None:
    x, target = torch.randn(3, 4).log_softmax(1), torch.eye(3, 4)
    got = kl_div(mx.array(x.numpy()), mx.array(target.numpy()), "none")
    assert_parity(got, lambda x, t: F.kl_div(x, t, reduction="none"), x, target)
    gradient = mx.grad(lambda x, t: kl_div(x, t, "sum"), argnums=(0, 1))
    assert all(
        mx.all(mx.isfinite(g)).item()
        for g in gradient(mx.array(x.numpy()), mx.array(target.numpy()))
    )


def test_stirling_is_for_counts_above_1(assert_parity: Callable[..., None]) -> None:
    x, target = torch.randn(6), torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 30.0])
    got = poisson_nll_loss(mx.array(x.numpy()), mx.array(target.numpy()), full=True)
    assert_parity(got, lambda x, t: F.poisson_nll_loss(x, t, full=True), x, target)


@pytest.mark.parametrize("var", [0.25, 0.0, 1e-9])
def test_one_variance_for_all(assert_parity: Callable[..., None], var: float) -> None:
    x, target = torch.randn(4, 5), torch.randn(4, 5)
    got = gaussian_nll_loss(mx.array(x.numpy()), mx.array(target.numpy()), var)
    assert_parity(got, lambda x, t: F.gaussian_nll_loss(x, t, var), x, target)


def test_variances_at_the_limits(assert_module_parity: Callable[..., None]) -> None:
    var = torch.tensor([0.0, 1e-9, 1e-6, 1.0, 1e30])
    module, layer = torch.nn.GaussianNLLLoss(reduction="none"), layers.GaussianNLLLoss("none")
    assert_module_parity(module, layer, torch.randn(5), torch.randn(5), var)


def test_negative_variance_is_nan() -> None:
    got = gaussian_nll_loss(mx.zeros(3), mx.ones(3), mx.array([1.0, -1.0, -1e-9]), reduction="none")
    assert mx.isnan(got).tolist() == [False, True, True]


X = mx.zeros((4, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smooth_l1_loss(X, X, beta=-0.1), "'beta' must not be negative but got -0.1"),
        (lambda: huber_loss(X, X, delta=0.0), "'delta' must be positive but got 0.0"),
        (lambda: gaussian_nll_loss(X, X, mx.ones((5,))), "'var' must have"),
        (lambda: gaussian_nll_loss(X, X, mx.ones((1, 1))), "'var' must have"),
        (lambda: gaussian_nll_loss(X, X, -1.0), "'var' must not be negative but got -1.0"),
        (lambda: mse_loss(X, X, "batchmean"), "'reduction' must be one of"),
        (lambda: kl_div(X, X, "median"), "'reduction' must be one of .*batchmean"),
    ],
    ids=["beta", "delta", "shape", "two_axes", "negative", "reduction", "kl_reduction"],
)
def test_refuses(call: Callable[[], mx.array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
