"""`layers.dropout`: what is dropped together, how often, and what stays of mean and variance."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxport.layers import AlphaDropout, Dropout1d, FeatureAlphaDropout

LAYERS = pytest.mark.parametrize("layer", [Dropout1d, AlphaDropout, FeatureAlphaDropout])


def draw(*shape: int) -> mx.array:
    return mx.random.normal(shape)


@LAYERS
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_evaluation_changes_nothing(layer: type[nn.Module], p: float) -> None:
    x = draw(4, 6, 5)
    assert mx.array_equal(layer(p).eval()(x), x)


@LAYERS
def test_training_at_0_changes_nothing_and_at_1_drops_all(layer: type[nn.Module]) -> None:
    x = draw(4, 6, 5)
    assert mx.array_equal(layer(0.0)(x), x)
    assert mx.array_equal(layer(1.0)(x), mx.zeros_like(x))


@LAYERS
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_dtype_stays(layer: type[nn.Module], dtype: mx.Dtype) -> None:
    assert layer(0.5)(draw(4, 6, 5).astype(dtype)).dtype == dtype


def test_dropout1d_drops_whole_channels() -> None:
    x = mx.ones((200, 7, 50))
    y = np.array(Dropout1d(0.3)(x))
    assert (y == y[:, :1]).all()
    kept = y[:, 0] != 0
    np.testing.assert_allclose(y[:, 0][kept], 1 / 0.7, rtol=1e-6)
    assert kept.mean() == pytest.approx(0.7, abs=0.02)


def test_dropout1d_without_batch() -> None:
    y = np.array(Dropout1d(0.5)(mx.ones((9, 400))))
    assert (y == y[:1]).all()
    assert 0.4 < (y[0] == 0).mean() < 0.6


@pytest.mark.parametrize("layer", [AlphaDropout, FeatureAlphaDropout])
def test_alpha_dropout_keeps_mean_and_variance(layer: type[nn.Module]) -> None:
    y = np.array(layer(0.4)(draw(400, 5, 300)))
    assert y.mean() == pytest.approx(0, abs=0.02)
    assert y.var() == pytest.approx(1, abs=0.03)


def test_alpha_dropout_drops_single_elements() -> None:
    y = np.array(AlphaDropout(0.4)(mx.zeros((100, 20, 30))))
    low, high = np.unique(y)
    assert (y == low).mean() == pytest.approx(0.4, abs=0.01)
    assert high - low == pytest.approx(1.7580993 / np.sqrt((1.7580993**2 * 0.4 + 1) * 0.6))


def test_feature_alpha_dropout_drops_whole_channels() -> None:
    y = np.array(FeatureAlphaDropout(0.4)(mx.zeros((100, 5, 6, 40))))
    assert (y == y[:, :1, :1]).all()
    assert len(np.unique(y)) == 2


@LAYERS
@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_refuses_what_is_no_probability(layer: type[nn.Module], p: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        layer(p)
