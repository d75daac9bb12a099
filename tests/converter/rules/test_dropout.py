from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch

from mlxport import layers
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
    built = {spec.target, *spec.by_ndim.values()}
    assert target in built
    assert spec.by_ndim == {nn.Dropout2d: {4: target}, nn.Dropout3d: {5: target}}.get(target, {})
    assert spec.rank == {"Dropout1d": 1, "Dropout3d": 3}.get(type(module).__name__)
    assert (spec.args, spec.kwargs) == (args, {})
    assert module.p < 1 or built == {target}


@ALL
def test_drops_everything(source: Any, shape: tuple[int, ...]) -> None:
    assert spec_for(source(1.0)).target.__module__.startswith("mlxport.layers")
    layer = build_layer(source(1.0).train())
    assert mx.array_equal(layer(mx.ones(shape)), mx.zeros(shape))


@pytest.mark.parametrize(
    ("source", "shape", "together"),
    [
        (torch.nn.Dropout2d, (40, 6, 30), (1,)),  # a signal, as PyTorch has it, not an image
        (torch.nn.Dropout2d, (40, 30), ()),
        (torch.nn.Dropout3d, (3, 4, 5, 900), (0, 1, 2)),
    ],
    ids=["signals", "features", "no-batch"],
)
def test_whole_channels_of_other_ranks(
    source: Any, shape: tuple[int, ...], together: tuple[int, ...]
) -> None:
    y = np.array(build_layer(source(0.3).train())(mx.ones(shape)))
    first = np.take(y, 0, axis=together[-1]) if together else y
    for axis in together:
        assert (y == np.take(y, [0], axis=axis)).all()
    assert (first == 0).mean() == pytest.approx(0.3, abs=0.06)
