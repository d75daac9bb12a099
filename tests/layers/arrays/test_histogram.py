"""Counts against torch: ends, outside values, NaN, a range of no width."""

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.histogram import bin_edges, binned, histogram

VALUES = {
    "spread": torch.arange(-20, 21) / 8,
    "at the ends": torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 4.0]),
    "all equal": torch.full((5,), 2.0),
}


@pytest.mark.parametrize("ends", [(0, 0), (0, 4), (-1, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("name", VALUES)
def test_counts(name: str, ends: tuple[float, float]) -> None:
    x = VALUES[name]
    got = histogram(mx.array(x.numpy()), 4, *ends)
    assert np.array_equal(np.array(got), torch.histc(x, 4, *ends).numpy())


def test_nan_is_not_counted() -> None:
    x = torch.tensor([0.5, torch.nan, 1.5])
    got = histogram(mx.array(x.numpy()), 2, 0, 2)
    assert np.array_equal(np.array(got), torch.histc(x, 2, 0, 2).numpy())


@pytest.mark.parametrize("bins", [1, 2, 4, 7])
@pytest.mark.parametrize("ends", [None, (0.0, 4.0), (-1.0, 1.0), (2.0, 2.0)], ids=str)
@pytest.mark.parametrize("name", VALUES)
def test_edges_and_what_is_between(name: str, ends: tuple[float, float] | None, bins: int) -> None:
    x = VALUES[name]
    counts, edges = torch.histogram(x, bins, range=ends)
    got = bin_edges(mx.array(x.numpy()), bins, *(ends or ()))
    np.testing.assert_allclose(np.array(got), edges.numpy(), rtol=1e-6, atol=1e-6)
    found = binned(mx.array(x.numpy()), mx.array(edges.numpy()))
    assert np.array_equal(np.array(found), counts.numpy())


def test_weights_and_shares() -> None:
    x, weight = torch.tensor([[0.5, torch.nan, 1.5], [9, 2, 0]]), torch.arange(6.0).view(2, 3)
    edges = torch.tensor([0.0, 0.5, 2.0])
    for given in ({}, {"weight": weight}, {"density": True}, {"weight": weight, "density": True}):
        want = torch.histogram(x, edges, **given).hist  # type: ignore[arg-type]
        ours = {k: mx.array(v.numpy()) if k == "weight" else v for k, v in given.items()}
        got = binned(mx.array(x.numpy()), mx.array(edges.numpy()), **ours)
        np.testing.assert_allclose(np.array(got), want.numpy(), rtol=1e-6)
