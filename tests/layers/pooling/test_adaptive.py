"""`layers.adaptive_pooling` against torch."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers.pooling.adaptive import (
    AdaptiveAvgPool2d,
    adaptive_avg_pool,
    adaptive_max_pool,
    adaptive_max_pool_with_indices,
)

AVG = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
LAST = {1: (0, 2, 1), 2: (0, 2, 3, 1), 3: (0, 2, 3, 4, 1)}
RANKS = pytest.mark.parametrize("rank", [1, 2, 3])
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
SIZES = pytest.mark.parametrize(
    "sizes",
    [
        pytest.param((1, 1, 1), id="global"),
        pytest.param((6, 3, 4), id="divisors"),
        pytest.param((5, 4, 3), id="ragged"),
        pytest.param((12, 9, 8), id="same"),
        pytest.param((17, 18, 30), id="growing"),
    ],
)


def picture(rank: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, *(12, 9, 8)[:rank]).to(dtype)


def to_mlx(x: torch.Tensor) -> mx.array:
    return mx.array(x.movedim(1, -1).contiguous())


@RANKS
@SIZES
def test_mean(assert_parity: Callable[..., None], rank: int, sizes: tuple[int, ...]) -> None:
    x, sizes = picture(rank), sizes[:rank]
    y = adaptive_avg_pool(to_mlx(x), sizes)
    assert_parity(y, lambda x: AVG[rank](x, sizes), x, order=LAST[rank])


@RANKS
@SIZES
@pytest.mark.parametrize("values", ["distinct", "tied", "nan", "minus_infinity"])
def test_maximum_and_its_index(rank: int, sizes: tuple[int, ...], values: str) -> None:
    x, sizes = picture(rank), sizes[:rank]
    if values == "tied":
        x = x.round()
    elif values == "nan":
        x[torch.rand_like(x) < 0.2] = torch.nan
    elif values == "minus_infinity":
        x[:] = -torch.inf
    want, places = MAX[rank](x, sizes, return_indices=True)
    want, places = (t.permute(LAST[rank]).numpy() for t in (want, places))
    got, indices = adaptive_max_pool_with_indices(to_mlx(x), sizes)
    np.testing.assert_array_equal(np.array(got), want)
    np.testing.assert_array_equal(np.array(indices), places)
    assert indices.dtype == mx.int64
    np.testing.assert_array_equal(np.array(adaptive_max_pool(to_mlx(x), sizes)), want)


@HALVES
@SIZES
def test_half_precision(
    assert_parity: Callable[..., None], dtype: torch.dtype, sizes: tuple[int, ...]
) -> None:
    x, sizes = picture(2, dtype), sizes[:2]
    y = adaptive_avg_pool(to_mlx(x), sizes)
    assert_parity(y, lambda x: F.adaptive_avg_pool2d(x, sizes), x, order=LAST[2])
    y = adaptive_max_pool(to_mlx(x), sizes)
    assert_parity(y, lambda x: F.adaptive_max_pool2d(x, sizes), x, order=LAST[2])


@pytest.mark.parametrize("shape", [(1, 2, 1_000_000), (1, 2, 40, 40, 40)], ids=["1d", "3d"])
def test_many_values_are_summed_as_well_as_torch_does(
    assert_parity: Callable[..., None], shape: tuple[int, ...]
) -> None:
    rank = len(shape) - 2
    x = torch.randn(shape) + 3
    y = adaptive_avg_pool(to_mlx(x), (1,) * rank)
    assert_parity(y, lambda x: AVG[rank](x, (1,) * rank), x, order=LAST[rank])


@RANKS
def test_without_batch(rank: int) -> None:
    x, sizes = to_mlx(picture(rank)), (5, 4, 3)[:rank]
    for function in (adaptive_avg_pool, adaptive_max_pool):
        assert mx.array_equal(function(x[0], sizes), function(x, sizes)[0])
    values, indices = adaptive_max_pool_with_indices(x[1], sizes)
    batched = adaptive_max_pool_with_indices(x, sizes)
    assert mx.array_equal(values, batched[0][1])
    assert mx.array_equal(indices, batched[1][1])


def test_none_keeps_an_axis(assert_parity: Callable[..., None]) -> None:
    x = picture(2)
    y = adaptive_avg_pool(to_mlx(x), (None, 2))
    assert_parity(y, lambda x: F.adaptive_avg_pool2d(x, (None, 2)), x, order=LAST[2])
    assert mx.array_equal(AdaptiveAvgPool2d(None)(to_mlx(x)), to_mlx(x))


@pytest.mark.parametrize("sizes", [(0, 2), (0, 0), (9, 0)], ids=str)
def test_nothing_wanted(sizes: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 9, 8)
    want = tuple(F.adaptive_avg_pool2d(x, sizes).permute(LAST[2]).shape)
    assert adaptive_avg_pool(to_mlx(x), sizes).shape == want
    assert adaptive_max_pool(to_mlx(x), sizes).shape == want
    values, indices = adaptive_max_pool_with_indices(to_mlx(x), sizes)
    assert values.shape == indices.shape == want


def test_empty_batch() -> None:
    assert adaptive_avg_pool(mx.zeros((0, 9, 8, 3)), (4, 1)).shape == (0, 4, 1, 3)
    assert adaptive_max_pool(mx.zeros((0, 9, 8, 3)), (4, 1)).shape == (0, 4, 1, 3)


def test_infinity_stays_in_its_segments(assert_parity: Callable[..., None]) -> None:
    x = picture(2)
    x[:, 0, 4, 5], x[:, 1, 0, 0] = torch.inf, torch.nan
    y = adaptive_avg_pool(to_mlx(x), (5, 3))
    assert_parity(y, lambda x: F.adaptive_avg_pool2d(x, (5, 3)), x, order=LAST[2])


@pytest.mark.parametrize("ours", [adaptive_avg_pool, adaptive_max_pool], ids=["avg", "max"])
def test_gradients(assert_parity: Callable[..., None], ours: Callable[..., mx.array]) -> None:
    x, sizes = picture(3), (5, 4, 3)
    theirs = AVG[3] if ours is adaptive_avg_pool else MAX[3]
    weights = torch.randn_like(theirs(x, sizes))

    def reference(x: torch.Tensor) -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        (theirs(leaf, sizes) * weights).sum().backward()
        return leaf.grad

    got = mx.grad(lambda x: (ours(x, sizes) * to_mlx(weights)).sum())(to_mlx(x))
    assert_parity(got, reference, x, order=LAST[3])


def test_refuses_what_torch_refuses() -> None:
    with pytest.raises(RuntimeError):
        F.adaptive_avg_pool2d(torch.zeros(1, 1, 4, 4), (-1, 2))
    with pytest.raises(ValueError, match="negative"):
        adaptive_avg_pool(mx.zeros((1, 4, 4, 1)), (-1, 2))
    with pytest.raises(RuntimeError):
        F.adaptive_avg_pool2d(torch.zeros(1, 1, 0, 4), (1, 2))
    with pytest.raises(ValueError, match="empty spatial axis"):
        adaptive_avg_pool(mx.zeros((1, 0, 4, 1)), (1, 2))
    with pytest.raises(RuntimeError):
        F.adaptive_avg_pool2d(torch.zeros(1, 1, 4, 4, dtype=torch.long), (1, 2))
    with pytest.raises(ValueError, match="floating"):
        adaptive_avg_pool(mx.zeros((1, 4, 4, 1), dtype=mx.int32), (1, 2))
    with pytest.raises(ValueError, match="one number or 2"):
        AdaptiveAvgPool2d((1, 2, 3))
    with pytest.raises(ValueError, match="one entry per spatial axis"):
        adaptive_avg_pool(mx.zeros((1, 4, 4, 1)), 1)  # type: ignore[arg-type]


@given(size=st.integers(1, 40), count=st.integers(1, 50))
def test_every_size(assert_parity: Callable[..., None], size: int, count: int) -> None:
    x = torch.randn(2, 2, size)
    y = adaptive_avg_pool(to_mlx(x), (count,))
    assert_parity(y, lambda x: F.adaptive_avg_pool1d(x, count), x, order=LAST[1])
    want, places = F.adaptive_max_pool1d(x, count, return_indices=True)
    got, indices = adaptive_max_pool_with_indices(to_mlx(x), (count,))
    np.testing.assert_array_equal(np.array(got), want.permute(LAST[1]).numpy())
    np.testing.assert_array_equal(np.array(indices), places.permute(LAST[1]).numpy())
