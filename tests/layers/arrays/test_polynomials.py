"""Orthogonal polynomials against torch in float64, of fixed degrees and of degrees in arrays."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.polynomials import (
    chebyshev,
    hermite_h,
    hermite_he,
    laguerre_l,
    legendre_p,
    polynomial,
)

Fn = Callable[..., Any]

FUNCTIONS: dict[str, tuple[Fn, Fn]] = {
    **{
        f"{name}chebyshev {kind}": (
            lambda x, n, kind=kind, name=name: chebyshev(x, n, kind, shifted=bool(name)),
            getattr(torch.special, f"{name}chebyshev_polynomial_{kind}"),
        )
        for name in ("", "shifted_")
        for kind in "tuvw"
    },
    "hermite h": (hermite_h, torch.special.hermite_polynomial_h),
    "hermite he": (hermite_he, torch.special.hermite_polynomial_he),
    "laguerre": (laguerre_l, torch.special.laguerre_polynomial_l),
    "legendre": (legendre_p, torch.special.legendre_polynomial_p),
}
DEGREES = (-2, 0, 1, 2, 5, 7, 8, 9, 12)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_a_fixed_degree(name: str, degree: int, assert_parity: Fn) -> None:
    ours, theirs = FUNCTIONS[name]
    x = torch.linspace(-1.9, 1.9, 101)
    assert_parity(ours(mx.array(x.numpy()), degree), lambda x: theirs(x, degree), x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_degrees_in_an_array(name: str, assert_parity: Fn) -> None:
    ours, theirs = FUNCTIONS[name]
    x = torch.linspace(-1.9, 1.9, 101)[:, None]
    n = torch.tensor([*DEGREES, 3.7, -0.5])
    given = ours(mx.array(x.numpy()), mx.array(n.numpy()))
    assert given.shape == (101, len(n))
    for column, degree in enumerate(n):

        def alone(x: torch.Tensor, degree: torch.Tensor = degree) -> torch.Tensor:
            return theirs(x, degree.to(x.dtype))

        assert_parity(given[:, column : column + 1], alone, x)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "hermite" in name])
@pytest.mark.parametrize("degree", [128, 129])
def test_hermite_polynomials_end_where_those_of_torch_do(name: str, degree: int) -> None:
    ours, theirs = FUNCTIONS[name]
    x = torch.tensor([0.0])
    want = torch.isnan(theirs(x, degree))
    for n in (degree, mx.array([degree])):
        assert np.array_equal(np.isnan(np.array(ours(mx.array(x.numpy()), n))), want.numpy())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_at_the_ends(name: str) -> None:
    ours, theirs = FUNCTIONS[name]
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0])
    for degree in (3, 10):
        for n in (degree, mx.array([float(degree)])):
            given = torch.tensor(np.array(ours(mx.array(x.numpy()), n)))
            torch.testing.assert_close(given, theirs(x, degree), rtol=1e-5, atol=1e-5)


def test_degrees_beyond_the_most_are_nan_rather_than_wrong() -> None:
    given = legendre_p(mx.array([0.5, 0.5]), mx.array([128, 129]))
    assert np.isfinite(given[0].item())
    assert np.isnan(given[1].item())


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32], ids=str)
def test_the_dtype_is_that_of_the_argument(dtype: mx.Dtype) -> None:
    x = mx.array([0.3, 0.7]).astype(dtype)
    for ours, _ in FUNCTIONS.values():
        assert ours(x, 3).dtype == dtype
    assert polynomial((1.0, 2.0, 3.0), x).dtype == dtype
