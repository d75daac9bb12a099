"""Bessel and Airy functions against torch in float64, over their ranges and at their edges."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mpmath
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.bessel import (
    airy_ai,
    bessel_i,
    bessel_j,
    bessel_k,
    bessel_y,
    spherical_bessel_j0,
)

Fn = Callable[..., Any]

FUNCTIONS: dict[str, tuple[Fn, Fn]] = {
    "i0": (lambda x: bessel_i(x, 0), torch.special.i0),
    "i1": (lambda x: bessel_i(x, 1), torch.special.i1),
    "i0e": (lambda x: bessel_i(x, 0, scaled=True), torch.special.i0e),
    "i1e": (lambda x: bessel_i(x, 1, scaled=True), torch.special.i1e),
    "k0": (lambda x: bessel_k(x, 0), torch.special.modified_bessel_k0),
    "k1": (lambda x: bessel_k(x, 1), torch.special.modified_bessel_k1),
    "k0e": (lambda x: bessel_k(x, 0, scaled=True), torch.special.scaled_modified_bessel_k0),
    "k1e": (lambda x: bessel_k(x, 1, scaled=True), torch.special.scaled_modified_bessel_k1),
    "j0": (lambda x: bessel_j(x, 0), torch.special.bessel_j0),
    "j1": (lambda x: bessel_j(x, 1), torch.special.bessel_j1),
    "y0": (lambda x: bessel_y(x, 0), torch.special.bessel_y0),
    "y1": (lambda x: bessel_y(x, 1), torch.special.bessel_y1),
    "spherical j0": (spherical_bessel_j0, torch.special.spherical_bessel_j0),
    "airy": (airy_ai, torch.special.airy_ai),
}
WAVES = ("j0", "j1", "y0", "y1", "spherical j0", "airy")
# Both ends of every interval of a function, and beyond.
RANGES = {"small": (0.0, 0.5), "middle": (0.5, 2.5), "large": (2.5, 9.5), "far": (9.5, 60.0)}
EDGES = [0.0, 0.5, 1.0, 2.0, 2.5, 8.0, 30.0, 1e-30, 1e30, torch.inf, torch.nan]


@pytest.mark.parametrize("span", RANGES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_value_to_precision(name: str, span: str) -> None:
    ours, theirs = FUNCTIONS[name]
    x = torch.linspace(*RANGES[span], 500)[1:-1]
    if name == "airy":
        x = x.clamp_max(20.0)  # beyond, its values are denormal numbers
    got, want = torch.tensor(np.array(ours(mx.array(x.numpy())))).double(), theirs(x.double())
    # a wave crosses zero: its envelope falls as the root of x
    least = 0.05 if name in WAVES and span != "small" else 1e-38
    if name == "airy":
        least = 1e-38
    error = (got - want).abs() / want.abs().clamp_min(least)
    # mx.exp itself loses 5e-6 at arguments like 80, which all but the scaled ones inherit
    assert error.max() < 2e-5


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("sign", [1, -1])
def test_scale_free(name: str, sign: int, assert_parity: Fn) -> None:
    ours, theirs = FUNCTIONS[name]
    x = sign * (torch.arange(1200) / 100 + 0.007)
    if sign < 0 and name[0] in "ky":
        assert np.isnan(np.array(ours(mx.array(x.numpy())))).all()
        assert torch.isnan(theirs(x)).all()
        return
    assert_parity(ours(mx.array(x.numpy())), theirs, x)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("zero", [0, 1])
def test_beside_its_zeros(order: int, zero: int) -> None:
    """Against mpmath: torch's own float64 is off by 2e-7 there."""
    around = [(2.4048255, 5.5200782), (3.8317060, 7.0155869)][order][zero]
    x = torch.tensor([around - 1e-3, around - 1e-5, around + 1e-5, around + 1e-3])
    got = torch.tensor(np.array(bessel_j(mx.array(x.numpy()), order))).double()
    want = torch.tensor([float(mpmath.besselj(order, value.item())) for value in x]).double()
    assert ((got - want) / want).abs().max() < 5e-6


def test_far_from_zero_the_argument_is_reduced_exactly() -> None:
    x = torch.tensor([1e3, 1e4, 1e5])
    got = torch.tensor(np.array(bessel_j(mx.array(x.numpy()), 0))).double()
    want = torch.special.bessel_j0(x.double())
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_edges(name: str, sign: int) -> None:
    ours, theirs = FUNCTIONS[name]
    x = sign * torch.tensor(EDGES)
    got, want = torch.tensor(np.array(ours(mx.array(x.numpy())))), theirs(x)
    finite = torch.isfinite(want)
    assert torch.equal(torch.isnan(got), torch.isnan(want))
    assert torch.equal(got[~finite & ~torch.isnan(want)], want[~finite & ~torch.isnan(want)])
    torch.testing.assert_close(got[finite], want[finite], rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_precision(name: str, dtype: torch.dtype, assert_parity: Fn) -> None:
    ours, function = FUNCTIONS[name]

    def theirs(x: torch.Tensor) -> torch.Tensor:
        wide = x.float() if x.dtype == dtype else x  # most of them torch has not otherwise
        return function(wide).to(x.dtype)

    x = (torch.arange(40) / 10 + 0.1).to(dtype)
    kind = {torch.float16: mx.float16, torch.bfloat16: mx.bfloat16}[dtype]
    assert_parity(ours(mx.array(x.float().numpy()).astype(kind)), theirs, x)
