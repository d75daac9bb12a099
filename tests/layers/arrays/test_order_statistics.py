"""Medians, modes and running extremes against torch, with ties and NaN."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays import order_statistics

Fn = Callable[..., Any]

FUNCTIONS: dict[str, tuple[Fn, Fn]] = {
    "median": (order_statistics.median, torch.median),
    "nanmedian": (order_statistics.nanmedian, torch.nanmedian),
    "mode": (order_statistics.mode, torch.mode),
    "kth_value": (
        lambda x, axis, keepdims: order_statistics.kth_value(x, 2, axis, keepdims),
        lambda x, dim, keepdim: torch.kthvalue(x, 2, dim, keepdim),
    ),
}
RUNNING = {
    "max": (order_statistics.cumulative_max, torch.cummax),
    "min": (order_statistics.cumulative_min, torch.cummin),
}


def values(kind: str) -> torch.Tensor:
    if kind == "integers":
        return torch.randint(-3, 3, (4, 5, 6))
    x = torch.randn(4, 5, 6) if kind == "distinct" else torch.randint(-3, 3, (4, 5, 6)).float()
    if kind == "nan":
        x[torch.rand(x.shape) < 0.2] = torch.nan
    return x


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("kind", ["distinct", "ties", "nan", "integers"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_places(name: str, kind: str, axis: int, keepdims: bool) -> None:
    if name == "mode" and kind == "nan":
        pytest.skip("torch's mode of NaN depends on where its sort leaves them")
    ours, theirs = FUNCTIONS[name]
    x = values(kind)
    got, place = (
        torch.tensor(np.array(y)) for y in ours(mx.array(x.numpy()), axis=axis, keepdims=keepdims)
    )
    want, where = theirs(x, axis, keepdims)
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    assert place.dtype == torch.int64
    if kind == "distinct":
        assert torch.equal(place, where)
    if not keepdims:
        place, got = place.unsqueeze(axis), got.unsqueeze(axis)
    torch.testing.assert_close(x.gather(axis, place), got, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("kind", ["distinct", "ties", "nan", "integers"])
@pytest.mark.parametrize("name", RUNNING)
def test_running(name: str, kind: str, axis: int) -> None:
    ours, theirs = RUNNING[name]
    x = values(kind)
    for got, want in zip(ours(mx.array(x.numpy()), axis), theirs(x, axis), strict=True):
        torch.testing.assert_close(
            torch.tensor(np.array(got)), want, rtol=0, atol=0, equal_nan=True
        )


def test_one_value() -> None:
    x = mx.array([[3.0]])
    for ours, _ in list(FUNCTIONS.values())[:3]:
        value, place = ours(x, axis=1)
        assert (value.item(), place.item()) == (3.0, 0)


def test_a_quantile_that_is_none_is_nan() -> None:
    got = order_statistics.quantile(mx.array([1.0, 2.0]), mx.array([-0.1, 0.5, 1.1, mx.nan]))
    assert np.array_equal(np.array(got), [np.nan, 1.5, np.nan, np.nan], equal_nan=True)


@pytest.mark.parametrize("exact_places", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_gradients_of_quantiles(axis: int | None, exact_places: bool) -> None:
    x, q = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0.3, 0.75], dtype=torch.float64)
    x.requires_grad_(), q.requires_grad_()
    torch.quantile(x, q, axis).square().sum().backward()
    given = [mx.array(t.detach().float().numpy()) for t in (x, q)]

    def loss(x: mx.array, q: mx.array) -> mx.array:
        found = order_statistics.quantile(x, q, axis, exact_places=exact_places)
        return mx.square(found).sum()

    for got, want in zip(mx.grad(loss, argnums=(0, 1))(*given), (x.grad, q.grad), strict=True):
        assert want is not None
        np.testing.assert_allclose(np.array(got), want.numpy(), rtol=1e-4, atol=1e-5)


INTERPOLATIONS = ["lower", "higher", "nearest", "linear", "midpoint"]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_places_of_quantiles_are_pytorchs(interpolation: str) -> None:
    """Where a place is near a whole number, both find it alike; torch 2.14 no longer rounds it."""
    settings = {"interpolation": interpolation, "exact_places": torch.__version__ >= "2.14"}
    for length in (1, 2, 11, 21, 29, 101):
        x = torch.arange(length, dtype=torch.float32)
        q = torch.arange(0, 101) / 100
        got = order_statistics.quantile(mx.array(x.numpy()), mx.array(q.numpy()), **settings)
        want = torch.quantile(x, q, interpolation=interpolation)
        assert np.array_equal(np.array(got), want.numpy()), length
    for number in (0.1, 0.3, 0.7, 0.29):
        got = order_statistics.quantile(mx.array(x.numpy()), number, **settings)
        assert got.item() == torch.quantile(x, number, interpolation=interpolation).item()


@pytest.mark.parametrize("ignore_nan", [False, True])
@pytest.mark.parametrize("exact_places", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_places_are_rounded_or_exact(
    interpolation: str, exact_places: bool, ignore_nan: bool
) -> None:
    """The two ways of reckoning, by NumPy, whichever PyTorch is here."""
    near_whole = np.arange(101, dtype=np.float32) / np.float32(100)
    q = np.concatenate([near_whole, np.float32([1e-6, 3e-9, 1e-12, 2**-24, 1 - 2**-24])])
    for length in (1, 2, 11, 29, 101, 1000):
        x = np.arange(length, dtype=np.float32)
        if ignore_nan:
            x = np.append(x, np.float32([np.nan, np.nan]))
        ranks = q.astype(np.float64 if exact_places else np.float32) * (length - 1)
        assert ranks.dtype == (np.float64 if exact_places else np.float32)
        below, above = np.floor(ranks), np.ceil(ranks)
        want = {
            "lower": below,
            "higher": above,
            "nearest": np.round(ranks),
            "linear": ranks,
            "midpoint": (below + above) / 2,
        }[interpolation]
        got = np.array(
            order_statistics.quantile(
                mx.array(x),
                mx.array(q),
                interpolation=interpolation,
                ignore_nan=ignore_nan,
                exact_places=exact_places,
            )
        )
        if interpolation == "linear":
            np.testing.assert_allclose(got, want, rtol=3e-7, atol=1e-12)
        else:
            np.testing.assert_array_equal(got, want)


def test_exact_places_among_more_values_than_float32_counts() -> None:
    length = 2**24 + 4
    places = order_statistics.quantile(
        mx.arange(length) % 5 * 0.25,
        0.5,
        interpolation="lower",
        exact_places=True,
    )
    assert places.item() == np.sort(np.arange(length) % 5 * 0.25)[(length - 1) // 2]
