"""Losses as layers: how they show themselves and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch

from mlxport import layers

LOSSES = [
    found
    for name in layers.__all__
    if isinstance(found := getattr(layers, name), type) and issubclass(found, layers.Loss)
]


def build(cls: type, **arguments: Any) -> layers.Loss:
    sizes = (3, 5) if cls is layers.LinearCrossEntropyLoss else ()
    loss: layers.Loss = cls(*sizes, **arguments)
    return loss


@pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.__name__)
def test_reductions(cls: type) -> None:
    assert build(cls).reduction == "mean"
    assert all(build(cls, reduction=name).reduction == name for name in cls.reductions)
    with pytest.raises(ValueError, match=rf"\[{cls.__name__}\] 'reduction' must be one of"):
        build(cls, reduction="median")


def test_settings_show() -> None:
    assert str(layers.HuberLoss("sum", delta=2.0)) == "HuberLoss(reduction='sum', delta=2.0)"
    assert "ignore_index=-100, label_smoothing=0.0" in str(layers.CrossEntropyLoss())


def test_weights_start_as_ones_and_stay_frozen() -> None:
    loss = layers.BCEWithLogitsLoss(weight_shape=(3,), pos_weight_shape=(2, 1))
    assert {k: v.tolist() for k, v in loss.parameters().items()} == {
        "weight": [1, 1, 1],
        "pos_weight": [[1], [1]],
    }
    loss.unfreeze()
    assert loss.trainable_parameters() == {}


def test_weights_may_be_set() -> None:
    loss = layers.CrossEntropyLoss(weight_shape=(2,))
    loss.weight = mx.array([0.0, 1.0])
    assert loss(mx.array([[5.0, 0.0], [0.0, 0.0]]), mx.array([1, 0])).item() == pytest.approx(
        5.0067, rel=1e-4
    )


@pytest.mark.parametrize("cls", [layers.CrossEntropyLoss, layers.LinearCrossEntropyLoss])
def test_label_smoothing_is_a_share(cls: type) -> None:
    with pytest.raises(
        ValueError, match=rf"\[{cls.__name__}\] 'label_smoothing' must be from 0 to 1"
    ):
        build(cls, label_smoothing=2.0)


def inputs_of(cls: type) -> list[torch.Tensor]:
    """Arguments that a loss of that name takes, none of which could stand for another."""
    x, y = torch.randn(4, 5), torch.rand(4, 5) * 0.8 + 0.1
    signs = torch.tensor([1, -1, 1, -1])
    lists = torch.tensor([[3, 0, -1, 1, 2], [1, -1, 0, 0, 0], [4, 2, 0, -1, 3], [0, 1, 2, 3, 4]])
    classes = torch.tensor([1, 0, 4, 2])
    given: dict[type, list[torch.Tensor]] = {
        layers.KLDivLoss: [x.log_softmax(1), y],
        layers.GaussianNLLLoss: [x, y, y.flip(0)],
        layers.HingeEmbeddingLoss: [x, signs[:, None].expand(4, 5)],
        layers.SoftMarginLoss: [x, signs[:, None].expand(4, 5)],
        layers.MarginRankingLoss: [x, y, signs[:, None].expand(4, 5)],
        layers.MultiLabelMarginLoss: [x, lists],
        layers.CosineEmbeddingLoss: [x, y, signs],
        layers.TripletMarginLoss: [x, y, y.flip(0)],
        layers.CTCLoss: [
            torch.randn(6, 2, 5).log_softmax(2),
            torch.tensor([[1, 2, 3], [4, 1, 0]]),
            torch.tensor([6, 5]),
            torch.tensor([3, 2]),
        ],
        layers.CrossEntropyLoss: [x, classes],
        layers.NLLLoss: [x.log_softmax(1), classes],
        layers.BCELoss: [y, y.flip(0)],
        layers.MultiMarginLoss: [x, classes],
        layers.MultiLabelSoftMarginLoss: [x, (y > 0.5).float()],
        layers.LinearCrossEntropyLoss: [x[:, :3], classes],
    }
    return given.get(cls, [x, y])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.filterwarnings("ignore:reduction. 'mean':UserWarning")  # torch's, of KLDivLoss
@pytest.mark.parametrize(
    "cls", [c for c in LOSSES if c is not layers.Loss], ids=lambda cls: cls.__name__
)
def test_a_layer_computes_what_torchs_of_its_name_does(
    cls: Any, reduction: str, assert_module_parity: Callable[..., None]
) -> None:
    sizes = (3, 5) if cls is layers.LinearCrossEntropyLoss else ()
    module = getattr(torch.nn, cls.__name__)(*sizes, reduction=reduction)
    layer = build(cls, reduction=reduction)
    assert_module_parity(module, layer, *inputs_of(cls), gradients=False)
