"""Means in blocks against torch in float64, at lengths about the size of a block."""

from collections.abc import Callable

import mlx.core as mx
import pytest
import torch

from mlxport.layers.norm.statistics import mean_keepdims


@pytest.mark.parametrize("device", ["CPU", "GPU"])
@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 2048, 2500])
@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)], ids=str)
def test_means_in_blocks(
    assert_parity: Callable[..., None],
    compute_as: Callable[..., None],
    axes: tuple[int, ...],
    length: int,
    device: str,
) -> None:
    compute_as(device)
    shape = [3, 2, 2, 2]
    shape[axes[-1]] = length
    x = torch.randn(shape) + 1
    got = mean_keepdims(mx.array(x.numpy()), axes)
    assert_parity(got, lambda x: x.mean(axes, keepdim=True), x)
