"""`layers.indexed_pooling` against torch: indices must be equal, not close."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers.pooling.indexed import max_pool_with_indices, max_unpool, max_unpool_to

MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
UNPOOL = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}
RANKS = pytest.mark.parametrize("rank", [1, 2, 3])
WINDOWS = [
    pytest.param({"stride": 3}, id="blocks"),
    pytest.param({"stride": 2, "padding": 1}, id="overlapping"),
    pytest.param({"stride": 2, "padding": 1, "ceil_mode": True}, id="ceil"),
    pytest.param({"stride": 1, "dilation": 2, "padding": 1}, id="dilated"),
]


def to_mlx(x: torch.Tensor) -> mx.array:
    return mx.array(x.movedim(1, -1).contiguous())


def picture(rank: int) -> torch.Tensor:
    return torch.randn(2, 3, *(7, 9, 8)[:rank])


def assert_same_maxima(x: torch.Tensor, rank: int, settings: dict[str, Any]) -> None:
    want = MAX[rank](x, 3, return_indices=True, **settings)
    got = max_pool_with_indices(to_mlx(x), (3,) * rank, **settings)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.array(mine), theirs.movedim(1, -1).numpy())
    assert got[1].dtype == mx.int64


@RANKS
@pytest.mark.parametrize("settings", WINDOWS)
def test_indices(rank: int, settings: dict[str, Any]) -> None:
    assert_same_maxima(picture(rank), rank, settings)


@RANKS
@pytest.mark.parametrize("settings", WINDOWS)
def test_indices_of_ties_are_the_first(rank: int, settings: dict[str, Any]) -> None:
    assert_same_maxima(torch.randint(0, 2, picture(rank).shape).float(), rank, settings)


@RANKS
@pytest.mark.parametrize("settings", WINDOWS)
@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
def test_indices_of_nan_are_the_last(rank: int, settings: dict[str, Any], share: float) -> None:
    x = picture(rank)
    x[torch.rand_like(x) < share] = torch.nan
    assert_same_maxima(x, rank, settings)


@RANKS
@pytest.mark.parametrize("settings", WINDOWS)
def test_indices_where_all_is_minus_infinity(rank: int, settings: dict[str, Any]) -> None:
    assert_same_maxima(torch.full_like(picture(rank), -torch.inf), rank, settings)


@RANKS
def test_without_batch(rank: int) -> None:
    x = to_mlx(picture(rank))
    whole = max_pool_with_indices(x, (2,) * rank)
    for mine, batched in zip(max_pool_with_indices(x[1], (2,) * rank), whole, strict=True):
        assert mx.array_equal(mine, batched[1])


@RANKS
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="blocks"),
        pytest.param({"stride": 2}, id="overlapping"),  # one place may be written twice
        pytest.param({"stride": 2, "padding": 1}, id="padding"),
    ],
)
def test_unpool(rank: int, settings: dict[str, Any]) -> None:
    x = picture(rank)
    y, indices = MAX[rank](x, 3, return_indices=True, **settings)
    sizes = list(x.shape[2:])
    want = UNPOOL[rank](y, indices, 3, output_size=sizes, **settings).movedim(1, -1)
    got = max_unpool(to_mlx(y), to_mlx(indices), (3,) * rank, output_size=sizes, **settings)
    np.testing.assert_array_equal(np.array(got), want.numpy())
    direct = max_unpool_to(to_mlx(y), to_mlx(indices), sizes)
    assert mx.array_equal(direct, got)


@RANKS
def test_unpool_to_the_smallest_size(rank: int) -> None:
    y, indices = MAX[rank](picture(rank)[..., :6], 2, return_indices=True)
    if rank > 1:  # the default must hold every index
        y, indices = MAX[rank](torch.randn(2, 3, *[6] * rank), 2, return_indices=True)
    want = UNPOOL[rank](y, indices, 2).movedim(1, -1)
    got = max_unpool(to_mlx(y), to_mlx(indices), (2,) * rank)
    np.testing.assert_array_equal(np.array(got), want.numpy())
    unbatched = max_unpool(to_mlx(y)[0], to_mlx(indices)[0], (2,) * rank)
    assert mx.array_equal(unbatched, got[0])


def test_gradient_runs_back_through_pooling_and_unpooling() -> None:
    x = torch.randn(2, 3, 6, 6)
    weights = torch.randn_like(x)
    leaf = x.clone().requires_grad_()
    y, indices = F.max_pool2d(leaf, 2, return_indices=True)
    (F.max_unpool2d(y, indices, 2) * weights).sum().backward()

    def loss(x: mx.array) -> mx.array:
        y, indices = max_pool_with_indices(x, (2, 2))
        return (max_unpool(y, indices, (2, 2)) * to_mlx(weights)).sum()

    want = leaf.grad.movedim(1, -1).numpy()
    np.testing.assert_array_equal(np.array(mx.grad(loss)(to_mlx(x))), want)


@pytest.mark.parametrize("size", [4, 8], ids=["too_small", "too_large"])
def test_refuses_a_size_torch_refuses(size: int) -> None:
    y, indices = F.max_pool1d(torch.randn(1, 1, 6), 2, return_indices=True)
    with pytest.raises(ValueError, match="output_size"):
        F.max_unpool1d(y, indices, 2, output_size=[size])
    with pytest.raises(ValueError, match="output_size"):
        max_unpool(to_mlx(y), to_mlx(indices), (2,), output_size=[size])


def test_refuses_indices_of_another_shape() -> None:
    with pytest.raises(ValueError, match="input's shape"):
        max_unpool(mx.zeros((1, 3, 1)), mx.zeros((1, 2, 1), dtype=mx.int64), (2,))


@given(
    size=st.integers(1, 12),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    ceil_mode=st.booleans(),
    share=st.sampled_from([0.0, 0.3]),
)
def test_every_configuration(
    size: int, kernel: int, stride: int, ceil_mode: bool, share: float
) -> None:
    x = torch.randint(-3, 3, (2, 2, size, 5)).float()
    x[torch.rand_like(x) < share] = torch.nan
    settings = {"stride": (stride, 2), "padding": (kernel // 2, 1), "ceil_mode": ceil_mode}
    want = F.max_pool2d(x, (kernel, 3), return_indices=True, **settings)
    got = max_pool_with_indices(to_mlx(x), (kernel, 3), **settings)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.array(mine), theirs.movedim(1, -1).numpy())
