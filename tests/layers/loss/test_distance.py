"""Losses over embeddings where rules' tests do not reach: equal distances, null vectors."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import pytest
import torch

from mlxport import layers
from mlxport.layers.loss.distance import cosine_embedding_loss, triplet_margin_loss


def test_equal_distances_share_the_gradient(assert_module_parity: Callable[..., None]) -> None:
    anchor, negative = torch.randn(4, 3), torch.randn(4, 3)
    module = torch.nn.TripletMarginLoss(margin=5.0, swap=True, eps=0.1)
    layer = layers.TripletMarginLoss(margin=5.0, swap=True, eps=0.1)
    assert_module_parity(module, layer, anchor, anchor.clone(), negative)


def test_at_the_margin(
    assert_module_parity: Callable[..., None], gradients_at_a_margin: bool
) -> None:
    triplet = [torch.tensor([[x]]) for x in (0.0, 1.0, 3.0)]
    module = torch.nn.TripletMarginLoss(margin=2.0, eps=0.0)
    layer = layers.TripletMarginLoss(margin=2.0, eps=0.0)
    assert_module_parity(module, layer, *triplet, gradients=gradients_at_a_margin)


def test_triplets_broadcast(assert_module_parity: Callable[..., None]) -> None:
    arrays = torch.randn(4, 3), torch.randn(1, 3), torch.randn(4, 1)
    module = torch.nn.TripletMarginLoss(reduction="none")
    assert_module_parity(module, layers.TripletMarginLoss("none"), *arrays)


def test_null_vectors(
    assert_module_parity: Callable[..., None], gradients_at_a_margin: bool
) -> None:
    x1, x2 = torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    module = torch.nn.CosineEmbeddingLoss(reduction="none")
    layer = layers.CosineEmbeddingLoss("none")
    for target in ([1, 1], [0, 1]):
        assert_module_parity(module, layer, x1, x2, torch.tensor(target))
    apart = x1, x2, torch.tensor([-1, -1])  # with a cosine of 0, which is the margin
    assert_module_parity(module, layer, *apart, gradients=gradients_at_a_margin)


X, ONES = mx.zeros((4, 3)), mx.ones((4,))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cosine_embedding_loss(X, X, mx.array(1)), r"must be \(N, D\) for 'target' \(N,\)"),
        (lambda: cosine_embedding_loss(X, X[0], ONES), r"must be \(N, D\)"),
        (lambda: cosine_embedding_loss(X, X, X), r"must be \(N, D\)"),
        (lambda: triplet_margin_loss(X, X, X[0]), "as many axes but got shapes"),
        (lambda: triplet_margin_loss(X, X, X, margin=0.0), "'margin' must be positive but got 0"),
        (lambda: triplet_margin_loss(X, X, X, reduction="median"), "'reduction' must be one of"),
    ],
    ids=["target", "input", "two_axes", "triplet", "margin", "reduction"],
)
def test_refuses(call: Callable[[], mx.array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
