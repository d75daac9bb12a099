"""Special functions against torch in float64, over their ranges and at their edges."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.special import (
    digamma,
    erfc,
    erfcx,
    lgamma,
    ndtri,
    polygamma,
    trigamma,
    zeta,
)

Fn = Callable[..., Any]

FUNCTIONS: dict[str, tuple[Fn, Fn]] = {
    "erfc": (erfc, torch.erfc),
    "erfcx": (erfcx, torch.special.erfcx),
    "lgamma": (lgamma, torch.lgamma),
    "digamma": (digamma, torch.digamma),
    "trigamma": (trigamma, lambda x: torch.polygamma(1, x)),
}
# Both ends of every interval of a function, and beyond.
RANGES = {"small": (0.0, 0.5), "middle": (0.5, 2.5), "large": (2.5, 9.5), "far": (9.5, 60.0)}
EDGES = [0.0, 0.5, 1.0, 2.0, 2.5, 8.0, 30.0, 1e-30, 1e30, torch.inf, torch.nan]


@pytest.mark.parametrize("span", RANGES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_value_to_relative_precision(name: str, span: str) -> None:
    ours, theirs = FUNCTIONS[name]
    low, high = RANGES[span]
    if name == "erfc":  # beyond 9, its factors are denormal numbers
        low, high = min(low, 8.0), min(high, 9.0)
    x = torch.linspace(low, high, 500)[1:-1]
    got, want = torch.tensor(np.array(ours(mx.array(x.numpy())))).double(), theirs(x.double())
    near_zero = 0.3 if name == "digamma" else 1e-38  # it is a difference of logarithms
    error = (got - want).abs() / want.abs().clamp_min(near_zero)
    # mx.exp itself loses 5e-6 at arguments like 80, which all but the scaled ones inherit
    assert error.max() < 1e-5


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("sign", [1, -1])
def test_scale_free(name: str, sign: int, assert_parity: Fn) -> None:
    ours, theirs = FUNCTIONS[name]
    if name == "trigamma" and sign < 0:
        pytest.skip("torch's own float32 loses all below zero; the next test checks it")
    x = sign * (torch.arange(400) / 100 + 0.007)
    assert_parity(ours(mx.array(x.numpy())), theirs, x)


def test_trigamma_below_zero() -> None:
    x = -(torch.arange(400) / 100 + 0.0035)
    got = torch.tensor(np.array(trigamma(mx.array(x.numpy())))).double()
    want = torch.polygamma(1, x.double())
    assert ((got - want).abs() / want).max() < 1e-4  # the poles steepen the rounding of x itself


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_edges(name: str, sign: int) -> None:
    ours, theirs = FUNCTIONS[name]
    x = sign * torch.tensor(EDGES)
    if name == "trigamma":
        x = x[~((x < 0) & (x == x.floor()))]  # torch's sine of a multiple of π is not 0
    got, want = torch.tensor(np.array(ours(mx.array(x.numpy())))), theirs(x)
    finite = torch.isfinite(want)
    assert torch.equal(torch.isnan(got), torch.isnan(want))
    assert torch.equal(got[~finite & ~torch.isnan(want)], want[~finite & ~torch.isnan(want)])
    torch.testing.assert_close(got[finite], want[finite], rtol=2e-5, atol=1e-30)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_precision(name: str, dtype: torch.dtype, assert_parity: Fn) -> None:
    ours, function = FUNCTIONS[name]

    def theirs(x: torch.Tensor) -> torch.Tensor:
        wide = x.float() if name == "erfcx" else x  # which torch has not in half precision
        return function(wide).to(x.dtype)

    x = (torch.arange(40) / 10 + 0.1).to(dtype)
    kind = {torch.float16: mx.float16, torch.bfloat16: mx.bfloat16}[dtype]
    assert_parity(ours(mx.array(x.float().numpy()).astype(kind)), theirs, x)


# Whole numbers among them, where a case that is not taken divides by zero.
SLOPES = [-2.5, -0.7, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 8.0, 9.0, 20.0, 1e5]


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("erfc", [0.0, -0.0, *SLOPES, torch.inf]),
        ("erfcx", [0.0, -0.0, *SLOPES]),
        ("lgamma", [0.0, -0.0, *SLOPES, torch.inf]),
        ("digamma", [0.0, *SLOPES, torch.inf]),
        ("trigamma", SLOPES),
        ("ndtri", [0.0, 0.1, 0.5, 0.8, 1.0, -0.5, 1.5]),
    ],
)
def test_gradients(name: str, x: list[float]) -> None:
    ours, theirs = {**FUNCTIONS, "ndtri": (ndtri, torch.special.ndtri)}[name]
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    theirs(leaf).sum().backward()
    got = mx.grad(lambda x: ours(x).sum())(mx.array(x, dtype=mx.float32))
    torch.testing.assert_close(
        torch.tensor(np.array(got)).double(), leaf.grad, rtol=1e-4, atol=1e-9, equal_nan=True
    )


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_gradients_in_half_precision_are_computed_in_float32(dtype: mx.Dtype) -> None:
    x = mx.array([0.3, 2.0, 9.0]).astype(dtype)
    got = mx.grad(lambda x: lgamma(x).sum())(x)
    assert got.dtype == dtype
    assert mx.array_equal(got, digamma(x.astype(mx.float32)).astype(dtype))


def test_compiled_and_mapped_they_give_the_same() -> None:
    x = mx.linspace(0.1, 12, 60)
    want = lgamma(x)
    for got in (mx.compile(lgamma)(x), mx.vmap(lgamma)(x[:, None])[:, 0]):
        assert mx.allclose(got, want, rtol=1e-5, atol=1e-6)


TINY = [1e-45, 1e-38, 1e-30, 1e-8, 0.01, 0.13, 0.14, 0.3, 0.5, 0.64, 0.86, 0.87, 0.99, 0.9999999]


def test_the_inverse_of_the_normal_distribution() -> None:
    p = torch.cat([torch.tensor(TINY), torch.linspace(0.001, 0.999, 999)])
    got = torch.tensor(np.array(ndtri(mx.array(p.numpy())))).double()
    want = torch.special.ndtri(p.double())
    assert ((got - want).abs() / want.abs().clamp_min(1e-3)).max() < 1e-6


def test_where_the_normal_distribution_ends() -> None:
    p = torch.tensor([0.0, 1.0, -0.1, 1.1, torch.nan, torch.inf])
    want = torch.special.ndtri(p).numpy()
    assert np.array_equal(np.array(ndtri(mx.array(p.numpy()))), want, equal_nan=True)


@pytest.mark.parametrize("order", [2, 3, 4, 7])
def test_derivatives_of_higher_order(order: int, assert_parity: Fn) -> None:
    x = torch.cat([torch.linspace(0.1, 30, 400), -torch.linspace(0.1, 8, 80) - 0.003])
    given = polygamma(mx.array(x.numpy()), order)
    assert_parity(given, lambda x: torch.polygamma(order, x), x)


Q = [0.1, 1.0, 2.5, 40.0, 1e6, -0.6, -3.25, -15.3, 0.0, -2.0]


@pytest.mark.parametrize("x", [1.0, 0.5, 1.5, 2.0, 3.0, 9.0, 40.0])
def test_zeta(x: float) -> None:
    q = torch.tensor(Q)
    want = torch.special.zeta(torch.tensor(x).double(), q.double())
    got = torch.tensor(np.array(zeta(mx.array(x), mx.array(q.numpy())))).double()
    want[want.abs() > 3.4e38] *= torch.inf  # the largest that float32 holds
    torch.testing.assert_close(got, want, rtol=2e-5, atol=1e-38, equal_nan=True)


def test_zeta_too_far_below_zero_is_nan_rather_than_wrong() -> None:
    assert np.isnan(zeta(mx.array(2.0), mx.array(-16.5)).item())
    assert zeta(mx.array(2.0), mx.array(-17.0)).item() == np.inf
