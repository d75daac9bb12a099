"""Losses with a margin where rules' tests do not reach: at the margin itself, odd classes."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import pytest
import torch

from mlxport import layers
from mlxport.layers.loss.margin import (
    hinge_embedding_loss,
    margin_ranking_loss,
    multi_margin_loss,
    multilabel_margin_loss,
)


def test_hinge_at_the_margin(
    assert_module_parity: Callable[..., None], gradients_at_a_margin: bool
) -> None:
    x, target = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.3]), torch.tensor([-1, -1, -1, 1, 0])
    module = torch.nn.HingeEmbeddingLoss(reduction="none")
    layer = layers.HingeEmbeddingLoss("none")
    assert_module_parity(module, layer, x, target, gradients=gradients_at_a_margin)


def test_ranking_at_the_margin(
    assert_module_parity: Callable[..., None], gradients_at_a_margin: bool
) -> None:
    x1, x2 = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 1.0])
    target = torch.tensor([1, 1, -1])
    module = torch.nn.MarginRankingLoss(reduction="none")
    layer = layers.MarginRankingLoss("none")
    assert_module_parity(module, layer, x1, x2, target, gradients=gradients_at_a_margin)


@pytest.mark.parametrize("p", [1, 2])
def test_classes_at_the_margin(assert_module_parity: Callable[..., None], p: int) -> None:
    x, target = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])
    module = torch.nn.MultiMarginLoss(p=p, reduction="none")
    assert_module_parity(module, layers.MultiMarginLoss("none", p=p), x, target)


@pytest.mark.parametrize(
    "target",
    [[3, 0, -1, 1], [-1, 0, 1, 2], [2, 2, 2, -1], [0, 1, 2, 3]],
    ids=["ended", "empty", "repeated", "all"],
)
def test_lists_of_classes(assert_module_parity: Callable[..., None], target: list[int]) -> None:
    x = torch.tensor([0.1, 0.2, 1.2, 0.8])
    module = torch.nn.MultiLabelMarginLoss(reduction="none")
    layer = layers.MultiLabelMarginLoss("none")
    assert_module_parity(module, layer, x, torch.tensor(target))
    assert_module_parity(module, layer, x[None], torch.tensor([target]))


def test_class_out_of_range_is_nan() -> None:
    x, target = mx.zeros((3, 4)), mx.array([4, -1, 0])
    got = multi_margin_loss(x, target, weight=mx.ones(4), reduction="none")
    assert mx.isnan(got).tolist() == [True, True, False]
    lists = mx.array([[4, -1, 0, 0], [0, -2, -1, 0], [0, -1, 9, 9]])
    got = multilabel_margin_loss(x, lists, "none")
    assert mx.isnan(got).tolist() == [True, True, False]
    gradient = mx.grad(lambda x: multilabel_margin_loss(x[2:], lists[2:]))(x)
    assert mx.all(mx.isfinite(gradient)).item()


X, CLASSES = mx.zeros((2, 4)), mx.zeros((2,), mx.int32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: margin_ranking_loss(X, X, CLASSES), "as many axes but got shapes"),
        (lambda: multi_margin_loss(X, mx.zeros((4,), mx.int32)), "without the last axis"),
        (lambda: multi_margin_loss(X[None], CLASSES[None]), r"must be \(N, C\) or \(C,\)"),
        (lambda: multi_margin_loss(X, CLASSES, p=3), "'p' must be 1 or 2 but got 3"),
        (lambda: multilabel_margin_loss(X, CLASSES), "'target' of that shape"),
        (lambda: hinge_embedding_loss(X, X, reduction="median"), "'reduction' must be one of"),
    ],
    ids=["ranking", "multi", "axes", "p", "multilabel", "reduction"],
)
def test_refuses(call: Callable[[], mx.array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
