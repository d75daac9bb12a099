"""Elements replaced and added: values and gradients against torch; the source stays as it is."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.indexing import (
    diagonal_scatter,
    index_add,
    index_put,
    scatter,
    scatter_add,
    slice_scatter,
)

X, S = torch.randn(4, 5, 6), torch.randn(4, 5, 6)
I = torch.rand(4, 5, 6).argsort(1)  # noqa: E741
A = torch.tensor([2, 0])

Fn = Callable[..., Any]
CASES: dict[str, tuple[Fn, Fn]] = {
    "slice": (
        lambda x, s, i, a: slice_scatter(x, s[:, :2], 1, 1, 5, 2),
        lambda x, s, i, a: torch.slice_scatter(x, s[:, :2], 1, 1, 5, 2),
    ),
    "index": (
        lambda x, s, i, a: index_put(x, [None, a], s[:, :2]),
        lambda x, s, i, a: torch.ops.aten.index_put(x, [None, a], s[:, :2]),
    ),
    "indices": (
        lambda x, s, i, a: index_put(x, [a, None, a], s[:2, :, 0]),
        lambda x, s, i, a: torch.ops.aten.index_put(x, [a, None, a], s[:2, :, 0]),
    ),
    "added at indices": (
        lambda x, s, i, a: index_add(x, [None, a // 2], s[:, :2]),
        lambda x, s, i, a: torch.ops.aten.index_put(x, [None, a // 2], s[:, :2], True),
    ),
    "scatter": (
        lambda x, s, i, a: scatter(x, i, s, 1),
        lambda x, s, i, a: torch.scatter(x, 1, i, s),
    ),
    "scatter a part": (
        lambda x, s, i, a: scatter(x, i[:2, :3, :4], s, -2),
        lambda x, s, i, a: torch.scatter(x, 1, i[:2, :3, :4], s[:2, :3, :4]),
    ),
    "scatter a number": (
        lambda x, s, i, a: scatter(x, i[:2], 7.0, 1),
        lambda x, s, i, a: torch.scatter(x, 1, i[:2], 7.0),
    ),
    "scatter_add": (
        lambda x, s, i, a: scatter_add(x, i // 2, s, 1),
        lambda x, s, i, a: torch.scatter_add(x, 1, i // 2, s),
    ),
    "scatter_add a part": (
        lambda x, s, i, a: scatter_add(x, i[:2, :3, :4] // 2, s, -2),
        lambda x, s, i, a: torch.scatter_add(x, 1, i[:2, :3, :4] // 2, s[:2, :3, :4]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    ours, theirs = CASES[name]
    x, s = X.clone().requires_grad_(), S.clone().requires_grad_()
    want = theirs(x, s, I, A)
    weight = torch.randn(want.shape)
    gradients = torch.autograd.grad((want * weight).sum(), [x, s], allow_unused=True)

    places = mx.array(I.numpy()), mx.array(A.numpy())
    arrays = [mx.array(X.numpy()), mx.array(S.numpy())]
    got = ours(*arrays, *places)
    assert np.allclose(np.array(got), want.detach().numpy(), rtol=0, atol=1e-6)
    assert np.array_equal(np.array(arrays[0]), X.numpy())

    def loss(x: mx.array, s: mx.array) -> mx.array:
        return (ours(x, s, *places) * mx.array(weight.numpy())).sum()

    for mine, other in zip(mx.grad(loss, argnums=(0, 1))(*arrays), gradients, strict=True):
        expected = np.zeros(X.shape) if other is None else other.numpy()
        assert np.allclose(np.array(mine), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.complex64], ids=["int64", "complex64"])
@pytest.mark.parametrize("name", [name for name in CASES if name != "slice"])
def test_wide_elements_are_exact(name: str, dtype: type[np.generic]) -> None:
    ours, theirs = CASES[name]
    x, s = (np.random.randint(-(1 << 20), 1 << 20, (4, 5, 6)) for _ in range(2))
    if dtype is np.int64:
        x, s = x << 40, s << 40
    arrays = [x.astype(dtype), s.astype(dtype)]
    got = ours(*map(mx.array, arrays), mx.array(I.numpy()), mx.array(A.numpy()))
    want = theirs(*map(torch.from_numpy, arrays), I, A)
    assert np.array_equal(np.array(got), want.numpy())


@pytest.mark.parametrize("axes", [(0, 1), (2, 0), (1, 2)], ids=str)
@pytest.mark.parametrize("offset", [0, 2, -1, 9])
def test_diagonal(offset: int, axes: tuple[int, int]) -> None:
    if offset == 9:  # where no diagonal is, PyTorch takes a slice of none
        offset = X.shape[axes[1]]
    source = torch.randn_like(torch.diagonal(X, offset, *axes))
    arrays = [mx.array(t.numpy()) if t.numel() else mx.zeros(tuple(t.shape)) for t in (X, source)]
    got = diagonal_scatter(*arrays, offset, *axes)
    want = torch.diagonal_scatter(X, source, offset, *axes)
    assert np.array_equal(np.array(got), want.numpy())
    assert np.array_equal(np.array(arrays[0]), X.numpy())
