"""Losses of yes or no where rules' tests do not reach: certainty, large logits, odd input."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport import layers
from mlxport.layers.loss.binary import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    multilabel_soft_margin_loss,
    soft_margin_loss,
)


def test_certainty(assert_module_parity: Callable[..., None]) -> None:
    x = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, 1e-20, 1 - 1e-7])
    target = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.3, 1.0, 0.0])
    assert_module_parity(torch.nn.BCELoss(reduction="none"), layers.BCELoss("none"), x, target)


def test_second_derivative() -> None:
    x, target = torch.tensor([0.3, 0.8], dtype=torch.float64), torch.tensor([1.0, 0.2])

    def torch_loss(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.binary_cross_entropy(x, target.double(), reduction="sum")

    want = torch.autograd.functional.hessian(torch_loss, x).diagonal()
    first = mx.grad(lambda x: binary_cross_entropy(x, mx.array(target.numpy()), reduction="sum"))
    got = mx.grad(lambda x: first(x).sum())(mx.array(x.numpy(), dtype=mx.float32))
    np.testing.assert_allclose(np.array(got), want.numpy(), rtol=1e-5)


def test_no_probability_is_nan() -> None:
    got = binary_cross_entropy(
        mx.array([-0.1, 1.1, 0.5]), mx.array([0.5, 0.5, 1]), reduction="none"
    )
    assert mx.isnan(got).tolist() == [True, True, False]


@pytest.mark.parametrize("pos_weight", [None, torch.tensor([3.0])], ids=["plain", "weighted"])
def test_large_logits(
    assert_module_parity: Callable[..., None], pos_weight: torch.Tensor | None
) -> None:
    x = torch.tensor([1e4, -1e4, 100.0, -100.0, 20.0, -20.0])
    target = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.3, 1.0])
    module = torch.nn.BCEWithLogitsLoss(reduction="none", pos_weight=pos_weight)
    layer = layers.BCEWithLogitsLoss(
        "none", pos_weight_shape=(1,) if module.pos_weight is not None else None
    )
    assert_module_parity(module, layer, x, target)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32], ids=str)
def test_soft_margin_does_not_overflow(dtype: mx.Dtype) -> None:
    x, target = mx.array([2e4, -2e4, 3.0], dtype=dtype), mx.array([-1.0, 1.0, 1.0], dtype=dtype)
    got = soft_margin_loss(x, target, "none")
    assert got.dtype == dtype
    np.testing.assert_allclose(
        np.array(got.astype(mx.float32)), [2e4, 2e4, np.log1p(np.exp(-3))], rtol=5e-3
    )
    gradient = mx.grad(lambda x: soft_margin_loss(x, target, "sum"))(x)
    np.testing.assert_allclose(np.array(gradient.astype(mx.float32))[:2], [1, -1])


def test_classes_are_the_last_axis(assert_module_parity: Callable[..., None]) -> None:
    x, target = torch.randn(2, 3, 4), torch.rand(2, 3, 4)
    module = torch.nn.MultiLabelSoftMarginLoss(reduction="none")
    assert_module_parity(module, layers.MultiLabelSoftMarginLoss("none"), x, target)


@pytest.mark.parametrize("loss", [binary_cross_entropy, binary_cross_entropy_with_logits])
def test_refuses_another_shape(loss: Callable[..., mx.array]) -> None:
    with pytest.raises(ValueError, match=r"input's shape \(2, 3\) but got \(3,\)"):
        loss(mx.ones((2, 3)), mx.ones((3,)))


@pytest.mark.parametrize(
    "loss",
    [
        binary_cross_entropy,
        binary_cross_entropy_with_logits,
        multilabel_soft_margin_loss,
        soft_margin_loss,
    ],
)
def test_refuses_a_reduction(loss: Callable[..., mx.array]) -> None:
    with pytest.raises(ValueError, match="'reduction' must be one of"):
        loss(mx.ones((2, 3)), mx.ones((2, 3)), reduction="median")
