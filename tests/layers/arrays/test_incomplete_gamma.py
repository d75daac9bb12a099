"""Incomplete gamma functions against torch in float64, over their domain and at their edges."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.incomplete_gamma import gammainc, gammaincc

Fn = Callable[..., Any]

FUNCTIONS: dict[str, tuple[Fn, Fn]] = {
    "lower": (gammainc, torch.special.gammainc),
    "upper": (gammaincc, torch.special.gammaincc),
}
# Both sides of where one formula gives way to another.
SHAPES = {"tiny": (1e-6, 0.01), "small": (0.01, 1.0), "middle": (1.0, 8.0), "large": (8.0, 200.0)}
RATIOS = {"far below": (0.01, 0.5), "below": (0.5, 1.0), "above": (1.0, 2.0), "far": (2.0, 100.0)}
VALUES = [-1.0, 0.0, 1e-30, 0.5, 1.0, 1.1, 8.0, 30.0, 1e5, 1e30, torch.inf, -torch.inf, torch.nan]


def _held(y: mx.array) -> torch.Tensor:
    return torch.tensor(np.array(y))


def _spread(low: float, high: float, count: int) -> torch.Tensor:
    return torch.linspace(np.log(low), np.log(high), count).exp()


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_value_to_relative_precision(name: str, shape: str, ratio: str) -> None:
    ours, theirs = FUNCTIONS[name]
    a = _spread(*SHAPES[shape], 60)[:, None].expand(60, 60)
    x = a * _spread(*RATIOS[ratio], 60)
    got = _held(ours(mx.array(a.numpy()), mx.array(x.numpy()))).double()
    want = theirs(a.double(), x.double())
    shown = want > 1e-30
    error = (got - want).abs() / want.clamp_min(1e-30)
    # the exponents, up to 70, lose what their rounding is worth, in torch up to 1e-4
    tolerance = torch.where(want > 1e-6, 8e-6, 3e-5)
    assert (error < tolerance)[shown].all()
    assert got[~shown].max() < 2e-30 if (~shown).any() else True


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_within_a_few_times_torchs_own_noise(name: str, shape: str) -> None:
    ours, theirs = FUNCTIONS[name]
    a = _spread(*SHAPES[shape], 100)[:, None].expand(100, 100)
    x = a * _spread(0.3, 3.0, 100)
    want = theirs(a.double(), x.double())

    def noise(y: torch.Tensor) -> float:
        return float((y.double() - want).norm() / want.norm())

    got = _held(ours(mx.array(a.numpy()), mx.array(x.numpy())))
    assert noise(got) < 4 * max(noise(theirs(a, x)), 2**-24)


@pytest.mark.parametrize("a", [1e4, 1e6, 1.86545e7])
def test_large_shapes(a: float) -> None:
    """PyTorch's series breaks off before it converges here, in float64 too."""
    x = np.float32(a + np.sqrt(a) * np.array([-4.9, -2.0, -0.5, 0.0, 0.5, 2.0, 4.9]))
    # Wilson and Hilferty: the cube root of x/a is almost normal, to 1e-3 at these shapes
    normal = ((x.astype(float) / a) ** (1 / 3) - 1 + 1 / (9 * a)) * 3 * np.sqrt(a)
    want = torch.special.ndtr(torch.tensor(normal))
    got = _held(gammainc(mx.array(a), mx.array(x))).double()
    torch.testing.assert_close(got, want, rtol=1e-2, atol=0)
    upper = _held(gammaincc(mx.array(a), mx.array(x))).double()
    torch.testing.assert_close(upper, torch.special.ndtr(-torch.tensor(normal)), rtol=1e-2, atol=0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_edges(name: str) -> None:
    ours, theirs = FUNCTIONS[name]
    a, x = torch.meshgrid(torch.tensor(VALUES), torch.tensor(VALUES), indexing="ij")
    got = _held(ours(mx.array(a.numpy()), mx.array(x.numpy())))
    want = theirs(a.double(), x.double()).float()
    same = (a == x) & (a == 1e30)  # a half; PyTorch says 0 or 1
    torch.testing.assert_close(got[~same], want[~same], rtol=1e-5, atol=1e-30, equal_nan=True)
    assert (got[same] - 0.5).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype: mx.Dtype) -> None:
    a, x = mx.array([0.5, 3.0, 20.0]).astype(dtype), mx.array([0.25, 4.0, 18.0]).astype(dtype)
    got = gammainc(a, x)
    want = gammainc(a.astype(mx.float32), x.astype(mx.float32)).astype(dtype)
    assert got.dtype == dtype
    assert mx.array_equal(got, want)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_by_the_bound_and_none_by_the_shape(name: str) -> None:
    ours, theirs = FUNCTIONS[name]
    a, x = torch.tensor([[0.5], [3.0], [30.0]]), torch.tensor([0.2, 2.0, 25.0], requires_grad=True)
    theirs(a, x).sum().backward()
    by_shape, by_bound = mx.grad(lambda a, x: ours(a, x).sum(), argnums=(0, 1))(
        mx.array(a.numpy()), mx.array(x.detach().numpy())
    )
    torch.testing.assert_close(_held(by_bound), x.grad, rtol=1e-5, atol=1e-6)
    assert by_shape.shape == a.shape
    assert mx.isnan(by_shape).all()


def test_compiled_it_gives_the_same() -> None:
    a, x = mx.linspace(0.1, 20, 50)[:, None], mx.linspace(0.1, 40, 50)
    plain, compiled = gammaincc(a, x), mx.compile(gammaincc)(a, x)
    assert mx.allclose(plain, compiled, rtol=1e-5, atol=1e-7)
