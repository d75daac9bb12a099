"""Losses as layers: how they show themselves and what they refuse."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

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
