"""Dropouts survive a conversion: nothing in evaluation, random in training."""

import mlx.core as mx
import mlx.nn as mlx_nn
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mlxport
from mlxport import layers
from mlxport.converter.errors import InternalError
from mlxport.converter.graph.capture import capture

CASES = {
    "Dropout": (nn.Dropout, (2, 30, 5), mlx_nn.Dropout),
    "Dropout1d": (nn.Dropout1d, (2, 30, 5), layers.Dropout1d),
    "Dropout1d, unbatched": (nn.Dropout1d, (30, 5), layers.Dropout1d),
    "Dropout2d": (nn.Dropout2d, (2, 30, 5, 4), mlx_nn.Dropout2d),
    "Dropout2d of three axes": (nn.Dropout2d, (2, 30, 5), layers.Dropout2d),
    "Dropout3d": (nn.Dropout3d, (2, 30, 5, 4, 3), mlx_nn.Dropout3d),
    "Dropout3d, unbatched": (nn.Dropout3d, (30, 5, 4, 3), layers.Dropout3d),
    "AlphaDropout": (nn.AlphaDropout, (2, 30, 5), layers.AlphaDropout),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout, (2, 30, 5, 4), layers.FeatureAlphaDropout),
}


def blocks(values):
    """Which elements are dropped or kept together: the number of groups along each axis."""
    dropped = values != values.flat[np.argmax(values)]
    return [bool((dropped == np.take(dropped, [0], axis)).all()) for axis in range(values.ndim)]


@pytest.mark.parametrize(("kind", "shape", "layer"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.filterwarnings("ignore:dropout2d. Received a 3D input")
def test_all_survive(kind, shape, layer, inplace):
    torch.manual_seed(0)
    mx.random.seed(0)
    model = nn.Sequential(nn.ReLU(), kind(0.4, inplace), nn.Hardtanh(-9, 9))
    converted = mlxport.convert(model.eval(), torch.randn(shape))
    assert converted.report.passed
    assert type(converted.model.layers[1]) is layer
    x = torch.ones(shape)
    given = mx.array(x.numpy())
    np.testing.assert_array_equal(converted.model(given), x.numpy())
    converted.model.train()
    one, two = (np.array(converted.model(given)) for _ in range(2))
    assert not np.array_equal(one, two)
    model.train()
    want = model(x.clone()).numpy()
    np.testing.assert_allclose(np.unique(one), np.unique(want), rtol=1e-5)
    assert blocks(one) == blocks(want)


def test_dropout_that_never_drops_survives():
    converted = mlxport.convert(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.0)), torch.ones(2, 3))
    assert type(converted.model.layers[1]) is mlx_nn.Dropout


def test_convolutions_keep_their_order_around_a_dropout():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout2d(), nn.Conv2d(8, 2, 1))
    assert mlxport.convert(model, torch.randn(1, 3, 6, 6)).conversion.transposes == 2


class Written(nn.Module):
    """Writes into what a dropout gave, which is what the dropout was given."""

    def __init__(self, drop):
        super().__init__()
        self.drop = drop

    def forward(self, x):
        y = x * 1.5
        z = self.drop(y)
        z.add_(1)
        return y, z


WRITTEN = {
    "a layer": nn.Dropout(0.3),
    "a layer in place": nn.Dropout(0.3, inplace=True),
    "whole channels": nn.Dropout1d(0.3),
    "a function": lambda x: F.dropout(x, 0.3, training=False),
    "a function that drops nothing": lambda x: F.dropout(x, 0.0, training=True),
    "alpha": lambda x: F.feature_alpha_dropout(x, 0.3, training=False),
}


@pytest.mark.parametrize("drop", WRITTEN.values(), ids=WRITTEN.keys())
def test_a_dropout_that_is_off_gives_its_argument_itself(drop):
    if isinstance(drop, nn.Module):
        model = Written(drop)
    else:
        model = Written(None)
        model.drop = drop
    converted = mlxport.convert(model.eval(), torch.randn(2, 3, 4))
    assert converted.report.passed
    x = torch.randn(2, 3, 4)
    for got, want in zip(converted.model(mx.array(x.numpy())), model(x), strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-6)


def test_a_dropout_that_decomposition_loses_is_no_silent_loss(monkeypatch):
    monkeypatch.setattr(capture, "keep_dropouts", lambda program: None)
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout1d())
    with pytest.raises(InternalError, match="lost 1"):
        mlxport.convert(model, torch.ones(2, 3, 3))
