"""The norm whose scale is one more than its weight."""

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers import UnitOffsetRMSNorm


def by_torch(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide, scale = x.double(), 1 + weight.double()
    return wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + eps) * scale


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 1e-2)]
)
@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_it_agrees_with_float64(dtype: str, tolerance: float, eps: float) -> None:
    x = torch.randn(2, 5, 16).mul(3).to(getattr(torch, dtype))
    weight = torch.randn(16).to(getattr(torch, dtype))
    layer = UnitOffsetRMSNorm(16, eps)
    layer.weight = mx.array(weight.float().numpy()).astype(getattr(mx, dtype))
    got = layer(mx.array(x.float().numpy()).astype(getattr(mx, dtype)))
    assert got.dtype == getattr(mx, dtype)
    expected = by_torch(x, weight, eps).numpy()
    np.testing.assert_allclose(
        np.array(got.astype(mx.float32)), expected, rtol=tolerance, atol=tolerance
    )


def test_it_starts_as_a_plain_norm() -> None:
    x = mx.random.normal((3, 8))
    layer = UnitOffsetRMSNorm(8)
    assert mx.array_equal(layer(x), mx.fast.rms_norm(x, mx.ones(8), 1e-6))
    assert repr(layer) == "UnitOffsetRMSNorm(8, eps=1e-06)"
