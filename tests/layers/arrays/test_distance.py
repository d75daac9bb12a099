"""Distances against torch in float64."""

import math

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.distance import cdist, cosine_similarity, pairwise_distance, pdist


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize(
    ("a", "b"), [((4, 3), (5, 3)), ((2, 4, 3), (5, 3)), ((3, 1, 4, 3), (2, 5, 3)), ((4, 0), (5, 0))]
)
def test_matches_torch(a: tuple[int, ...], b: tuple[int, ...], p: float) -> None:
    x, y = torch.randn(a), torch.randn(b)
    got = np.array(cdist(mx.array(x.numpy()), mx.array(y.numpy()), p))
    want = torch.cdist(x.double(), y.double(), p=p, compute_mode="donot_use_mm_for_euclid_dist")
    assert got.shape == tuple(want.shape)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=0)


def test_near_points_far_from_the_origin() -> None:
    x = torch.full((30, 3), 1000.0)
    x[:, 0] += torch.arange(30) / 64
    array = mx.array(x.numpy())
    want = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    np.testing.assert_array_equal(np.array(cdist(array, array)), want.numpy().astype(np.float32))


@pytest.mark.parametrize(
    ("a", "b", "p"), [((4, 3), (4, 2), 2.0), ((3,), (4, 3), 2.0), ((4, 3), (4, 3), -1.0)]
)
def test_refuses(a: tuple[int, ...], b: tuple[int, ...], p: float) -> None:
    with pytest.raises(ValueError, match="inputs must be"):
        cdist(mx.zeros(a), mx.zeros(b), p)


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 3.0, math.inf])
def test_pairwise_gradient_is_finite_where_points_meet(p: float) -> None:
    x = mx.ones((2, 3))
    gradient = mx.grad(lambda x, y: pairwise_distance(x, y, p, eps=0.0).sum())(x, x)
    assert mx.all(gradient == 0).item() or math.isinf(p)
    assert mx.all(mx.isfinite(gradient)).item()


def test_cosine_of_long_vectors() -> None:
    x, y = torch.randn(3, 10000), torch.randn(3, 10000)
    got = cosine_similarity(mx.array(x.numpy()), mx.array(y.numpy()))
    want = torch.cosine_similarity(x.double(), y.double())
    np.testing.assert_allclose(np.array(got), want.numpy(), rtol=1e-4, atol=1e-7)


def test_cosine_never_leaves_its_range() -> None:
    x = torch.randn(1000, 3) * 1e-3
    got = np.array(cosine_similarity(mx.array(x.numpy()), mx.array(x.numpy())))
    assert np.abs(got - 1).max() < 1e-6


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("shape", [(5, 3), (2, 1), (1, 3), (0, 3)], ids=str)
def test_each_pair_once(shape: tuple[int, ...], p: float) -> None:
    x = torch.randn(shape)
    got = np.array(pdist(mx.array(x.numpy()), p))
    want = torch.nn.functional.pdist(x.double(), p)
    assert got.shape == tuple(want.shape)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=0)
