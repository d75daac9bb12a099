"""The steps that fold a normalised weight: torch's own values, and nothing to take back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.fold_steps import FoldSpectralNorm, FoldWeightNorm
from mlxport.converter.plan.json_data import from_data, to_data
from mlxport.converter.plan.steps import Step, conv_transpose_weight
from mlxport.converter.plan.tensor import Tensor, to_float64
from mlxport.converter.plan.torch_tensor import tensor_from_torch

SHAPE = (4, 3, 2, 5)


def folded(step: Step, *tensors: torch.Tensor) -> np.ndarray:
    (result,) = step.apply(tuple(map(tensor_from_torch, tensors)))
    assert result.dtype == tensor_from_torch(tensors[-1]).dtype
    return to_float64(result)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1, -2])
def test_weight_norm(dim: int, dtype: torch.dtype) -> None:
    v = torch.randn(SHAPE, dtype=torch.float64).to(dtype)
    g = torch.rand_like(torch.norm_except_dim(v, 2, dim)) + 0.5
    want = torch._weight_norm(v.double(), g.double(), dim).to(dtype).double()
    np.testing.assert_allclose(
        folded(FoldWeightNorm(dim), g, v), want.numpy(), rtol=2 * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_folds_are_rounded_once(dtype: torch.dtype) -> None:
    v, g = torch.randn(64, 32).to(dtype), torch.rand(64, 1).to(dtype)
    want = (v.double() * (g.double() / v.double().norm(dim=1, keepdim=True))).to(dtype)
    got = folded(FoldWeightNorm(0), g, v)
    # torch may add the squares in another order, and so round the other way at a tie
    assert np.count_nonzero(got != want.double().numpy()) <= 2


@pytest.mark.parametrize("dim", [0, 1, 3])
def test_spectral_norm(dim: int) -> None:
    weight = torch.randn(SHAPE, dtype=torch.float64)
    rows = weight.movedim(dim, 0).flatten(1)
    u, v = torch.randn(rows.shape[0]).double(), torch.randn(rows.shape[1]).double()
    want = weight / torch.dot(u, rows @ v)
    got = folded(FoldSpectralNorm(dim), weight, u, v)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-14)


def test_zero_direction_is_nan_as_in_torch() -> None:
    g, v = torch.ones(2, 1), torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    want = torch._weight_norm(v, g, 0).numpy()
    np.testing.assert_array_equal(folded(FoldWeightNorm(0), g, v), want)


def test_channels_are_normed_before_they_move() -> None:
    v, g = torch.randn(4, 3, 2), torch.rand(4, 1, 1)  # in, out / groups, kernel
    tensors = tuple(map(tensor_from_torch, (g, v)))
    for step in (FoldWeightNorm(0), *conv_transpose_weight(2)):
        tensors = step.apply(tensors)
    want = tensor_from_torch(torch._weight_norm(v, g, 0))
    (moved,) = conv_transpose_weight(2)[0].apply((want,))
    np.testing.assert_allclose(tensors[0].bits, moved.bits, rtol=1e-6)


@pytest.mark.parametrize("step", [FoldWeightNorm(-1), FoldSpectralNorm(1)], ids=str)
def test_folds_are_data_and_not_reversible(step: Step) -> None:
    assert from_data(Step, json.loads(json.dumps(to_data(step)))) == step
    with pytest.raises(ConversionError, match="from the checkpoint that was converted"):
        step.invert((Tensor(np.ones((2, 2), np.float32), "F32"),))


@pytest.mark.parametrize("step", [FoldWeightNorm(), FoldSpectralNorm()], ids=str)
def test_a_damaged_plan_is_an_error(step: Step) -> None:
    with pytest.raises(ConversionError, match=r"takes [23] tensors, got 1"):
        step.apply((Tensor(np.ones((2, 2), np.float32), "F32"),))


@pytest.mark.parametrize("step", [FoldWeightNorm(), FoldSpectralNorm()], ids=str)
def test_only_real_floating_tensors_fold(step: Step) -> None:
    count = 2 if isinstance(step, FoldWeightNorm) else 3
    with pytest.raises(ConversionError, match="got I64"):
        step.apply((Tensor(np.ones((2, 2), np.int64), "I64"),) * count)
