"""Reductions into an array at given places against torch."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.scattering import (
    SCATTER_REDUCTIONS,
    index_reduce,
    masked_scatter,
    put,
    scatter_reduce,
)

Fn = Callable[..., Any]


def same(got: mx.array, want: torch.Tensor) -> None:
    torch.testing.assert_close(torch.tensor(np.array(got)), want, equal_nan=True)


def arrays(*tensors: torch.Tensor) -> list[mx.array]:
    return [mx.array(t.numpy()) for t in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", SCATTER_REDUCTIONS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scatter(axis: int, reduce: str, include_self: bool, dtype: torch.dtype) -> None:
    x = torch.randint(-9, 9, (4, 5, 6)).to(dtype)
    source = torch.randint(-9, 9, (4, 5, 6)).to(dtype)
    indices = torch.randint(0, x.shape[axis], (3, 4, 5))
    got = scatter_reduce(*arrays(x, indices, source), axis, reduce, include_self)
    same(got, x.scatter_reduce(axis, indices, source, reduce, include_self=include_self))


@pytest.mark.parametrize("reduce", SCATTER_REDUCTIONS)
def test_nan(reduce: str) -> None:
    x = torch.tensor([1.0, torch.nan, 3.0, 4.0])
    source = torch.tensor([torch.nan, 2.0, 5.0, 1.0])
    indices = torch.tensor([0, 1, 2, 0])
    for include_self in (True, False):
        got = scatter_reduce(*arrays(x, indices, source), 0, reduce, include_self)
        same(got, x.scatter_reduce(0, indices, source, reduce, include_self=include_self))


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", SCATTER_REDUCTIONS[1:])
@pytest.mark.parametrize("axis", [0, 1])
def test_slices(axis: int, reduce: str, include_self: bool) -> None:
    x, indices = torch.randn(4, 5), torch.tensor([1, 0, 1])
    source = torch.randn((3, 5) if axis == 0 else (4, 3))
    got = index_reduce(*arrays(x, indices, source), axis, reduce, include_self)
    same(got, x.index_reduce(axis, indices, source, reduce, include_self=include_self))


def test_half_precision_is_summed_in_float32() -> None:
    x, source = mx.zeros(1, dtype=mx.float16), mx.ones(4000, dtype=mx.float16)
    got = scatter_reduce(x, mx.zeros(4000, dtype=mx.int32), source, 0, "sum")
    assert (got.item(), got.dtype) == (4000.0, mx.float16)


def test_mask() -> None:
    x, source = torch.randn(3, 4), torch.randn(20)
    for mask in (torch.rand(3, 4) < 0.5, torch.zeros(3, 4) > 0, torch.ones(3, 4) > 0):
        same(masked_scatter(*arrays(x, mask, source)), x.masked_scatter(mask, source))


def test_put() -> None:
    x, indices, source = torch.randn(3, 4), torch.tensor([[0, -1], [5, 5]]), torch.randn(2, 2)
    same(put(*arrays(x, indices, source), accumulate=True), x.put(indices, source, True))
    indices = torch.tensor([[0, -1], [5, 6]])
    same(put(*arrays(x, indices, source)), x.put(indices, source))
