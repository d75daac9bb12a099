from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch

from mlxport import layers
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import build_layer, spec_for

SOURCES: dict[Any, tuple[int, ...]] = {
    torch.nn.Dropout: (2, 3, 4),
    torch.nn.Dropout1d: (2, 3, 4),
    torch.nn.Dropout2d: (2, 3, 4, 5),
    torch.nn.Dropout3d: (2, 3, 4, 5, 6),
    torch.nn.AlphaDropout: (2, 3, 4),
    torch.nn.FeatureAlphaDropout: (2, 3, 4, 5),
}
ALL = pytest.mark.parametrize(
    ("source", "shape"), SOURCES.items(), ids=lambda v: getattr(v, "__name__", "")
)


@ALL
def test_evaluation_gives_back_the_input(
    assert_layer_parity: Callable[..., None], source: Any, shape: tuple[int, ...]
) -> None:
    assert_layer_parity(source(0.4), torch.randn(shape))


@pytest.mark.parametrize("source", [torch.nn.Dropout1d, torch.nn.Dropout3d])
def test_evaluation_without_batch(assert_layer_parity: Callable[..., None], source: Any) -> None:
    assert_layer_parity(source(0.4), torch.randn(SOURCES[source][1:]))


@ALL
def test_training_drops_the_share_torch_drops(source: Any, shape: tuple[int, ...]) -> None:
    layer = build_layer(source(0.3).train())
    x = mx.ones((400, *shape[2:], 30))
    y = np.array(layer(x))
    values, counts = np.unique(y, return_counts=True)
    dropped, kept = counts / y.size
    assert (dropped, kept) == pytest.approx((0.3, 0.7), abs=0.02)
    want = source(0.3).train()(torch.ones(400, 30, *shape[2:])).unique()
    np.testing.assert_allclose(values, want.numpy(), atol=1e-6)
    whole_channels = (y == y[(slice(None), *[slice(0, 1)] * (y.ndim - 2))]).all()
    assert whole_channels == (source not in (torch.nn.Dropout, torch.nn.AlphaDropout))


@pytest.mark.parametrize(
    ("module", "target", "args"),
    [
        (torch.nn.Dropout(), nn.Dropout, ()),
        (torch.nn.Dropout(0.1, inplace=True), nn.Dropout, (0.1,)),
        (torch.nn.Dropout2d(0.2), nn.Dropout2d, (0.2,)),
        (torch.nn.Dropout3d(0.2), nn.Dropout3d, (0.2,)),
        (torch.nn.Dropout1d(0.2), layers.Dropout1d, (0.2,)),
    ],
    ids=["default", "inplace", "2d", "3d", "1d"],
)
def test_what_is_built(module: torch.nn.Module, target: type, args: tuple[float, ...]) -> None:
    spec = spec_for(module)
    assert (spec.target, spec.args, spec.kwargs) == (target, args, {})


@pytest.mark.parametrize("source", [torch.nn.Dropout, torch.nn.Dropout2d, torch.nn.Dropout3d])
def test_refuses_to_drop_everything(source: Any) -> None:
    with pytest.raises(UnsupportedError, match="p=1"):
        build_layer(source(1.0))


@pytest.mark.parametrize("source", [torch.nn.Dropout1d, torch.nn.AlphaDropout])
def test_ours_can_drop_everything(source: Any) -> None:
    layer = build_layer(source(1.0).train())
    assert mx.array_equal(layer(mx.ones((2, 3, 4))), mx.zeros((2, 3, 4)))
