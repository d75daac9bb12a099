"""Counts against torch: ends, outside values, NaN, a range of no width."""

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.histogram import histogram

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
