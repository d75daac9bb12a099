from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from mlxport import layers
from mlxport.converter.rules.build import spec_for
from mlxport.converter.rules.registry import Axes

T = torch.nn
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)


@DTYPES
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cosine_similarity(
    assert_layer_parity: Callable[..., None], dim: int, dtype: torch.dtype
) -> None:
    inputs = torch.randn(3, 7, 5), torch.randn(3, 7, 5)
    exact = dtype is torch.float32
    assert_layer_parity(T.CosineSimilarity(dim), *inputs, dtype=dtype, gradients=exact)


def test_cosine_similarity_broadcasts(assert_layer_parity: Callable[..., None]) -> None:
    inputs = torch.randn(3, 1, 5), torch.randn(7, 5)
    assert_layer_parity(T.CosineSimilarity(2), *inputs, gradients=True)


@pytest.mark.parametrize("eps", [1e-8, 0.5])
def test_short_vectors(assert_layer_parity: Callable[..., None], eps: float) -> None:
    x = torch.tensor([[0.0, 0.0], [0.1, 0.2], [3.0, 4.0]])
    assert_layer_parity(T.CosineSimilarity(eps=eps), x, torch.ones(3, 2), gradients=True)


@DTYPES
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, math.inf, -math.inf])
def test_pairwise_distance(
    assert_layer_parity: Callable[..., None], p: float, dtype: torch.dtype
) -> None:
    inputs = torch.randn(2, 6, 5), torch.randn(6, 5)
    exact = dtype is torch.float32 and p != 0  # where PyTorch has no gradient at all
    assert_layer_parity(T.PairwiseDistance(p), *inputs, dtype=dtype, gradients=exact)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_distance_0_has_gradient_0(assert_layer_parity: Callable[..., None], p: float) -> None:
    x = torch.randn(4, 5)
    assert_layer_parity(T.PairwiseDistance(p, eps=0.0), x, x.clone(), gradients=True)


@pytest.mark.parametrize("shape", [(5,), (4, 5)], ids=str)
def test_kept_axis(assert_layer_parity: Callable[..., None], shape: tuple[int, ...]) -> None:
    module = T.PairwiseDistance(eps=0.3, keepdim=True)
    assert_layer_parity(module, torch.randn(shape), torch.randn(shape), gradients=True)


def test_specs() -> None:
    similar, far = spec_for(T.CosineSimilarity()), spec_for(T.PairwiseDistance(1.0, keepdim=True))
    assert (similar.target, dict(similar.kwargs)) == (layers.CosineSimilarity, {})
    assert (far.target, dict(far.kwargs)) == (layers.PairwiseDistance, {"p": 1.0, "keepdims": True})
    assert similar.axes is far.axes is Axes.LOGICAL
