"""Order and places against torch: equal values, NaN, both directions, every axis."""

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.sorting import argsort, sort, topk


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sort_is_stable(axis: int, descending: bool) -> None:
    x = torch.randint(0, 4, (5, 20, 6)).float()
    x[0, 3] = torch.nan
    want = torch.sort(x, dim=axis, descending=descending, stable=True)
    values, places = sort(mx.array(x.numpy()), axis, descending)
    assert places.dtype == mx.int64
    assert np.array_equal(np.array(values), want.values.numpy(), equal_nan=True)
    assert np.array_equal(np.array(places), want.indices.numpy())
    assert mx.array_equal(argsort(mx.array(x.numpy()), axis, descending), places)


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("k", [0, 1, 4])
def test_topk(k: int, largest: bool) -> None:
    x = torch.randperm(60).reshape(3, 4, 5).float()
    want = torch.topk(x, k, 1, largest)
    values, places = topk(mx.array(x.numpy()), k, 1, largest)
    assert np.array_equal(np.array(values), want.values.numpy())
    assert np.array_equal(np.array(places), want.indices.numpy())


@pytest.mark.parametrize("descending", [False, True])
def test_bools_are_sorted_stably(descending: bool) -> None:
    x = torch.rand(3, 9) > 0.5
    values, places = sort(mx.array(x.numpy()), -1, descending)
    want = torch.sort(x, stable=True, descending=descending)
    assert values.tolist() == want.values.tolist()
    assert places.tolist() == want.indices.tolist()
