from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlxport import layers
from mlxport.converter.rules.build import spec_for
from mlxport.converter.rules.registry import Axes

T = torch.nn


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        pytest.param(T.PixelShuffle(2), (2, 12, 3, 5), id="pixel_shuffle"),
        pytest.param(T.PixelShuffle(3), (18, 3, 5), id="pixel_shuffle_no_batch"),
        pytest.param(T.PixelUnshuffle(2), (2, 3, 4, 6), id="pixel_unshuffle"),
        pytest.param(T.PixelUnshuffle(2), (3, 4, 6), id="pixel_unshuffle_no_batch"),
        pytest.param(T.ChannelShuffle(3), (2, 6, 5), id="channel_shuffle_1d"),
        pytest.param(T.ChannelShuffle(2), (2, 6, 4, 5), id="channel_shuffle_2d"),
        pytest.param(T.ChannelShuffle(2), (2, 6, 4, 5, 3), id="channel_shuffle_3d"),
        pytest.param(T.Flatten(), (2, 3, 4, 5), id="flatten"),
        pytest.param(T.Flatten(0, -2), (2, 3, 4, 5), id="flatten_leading"),
        pytest.param(T.Unflatten(1, (2, 3)), (2, 6, 5), id="unflatten"),
        pytest.param(T.Unflatten(-1, (5, 1)), (2, 6, 5), id="unflatten_last"),
        pytest.param(T.Unflatten(1, (2, -1)), (2, 6, 5), id="unflatten_inferred"),
        pytest.param(T.Unfold(3), (2, 3, 7, 8), id="unfold"),
        pytest.param(T.Unfold((2, 3), 2, (1, 2), 2), (2, 3, 7, 8), id="unfold_all"),
        pytest.param(T.Unfold(2, stride=2), (3, 6, 8), id="unfold_no_batch"),
        pytest.param(T.Fold((4, 5), 2), (2, 12, 12), id="fold"),
        pytest.param(T.Fold(6, (2, 3), padding=1, stride=2), (2, 12, 12), id="fold_all"),
        pytest.param(T.Fold((4, 5), 2), (12, 12), id="fold_no_batch"),
    ],
)
def test_forward_and_gradients(
    assert_layer_parity: Callable[..., None], module: torch.nn.Module, shape: tuple[int, ...]
) -> None:
    assert_layer_parity(module, torch.randn(shape), gradients=True)
    assert_layer_parity(module, torch.randn(shape), dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("module", "target", "args", "kwargs"),
    [
        (T.PixelShuffle(2), layers.PixelShuffle, (2,), {}),
        (T.Flatten(), layers.Flatten, (), {}),
        (T.Flatten(2), layers.Flatten, (), {"start_axis": 2}),
        (T.Unflatten(1, (2, 2)), layers.Unflatten, (1, (2, 2)), {}),
        (T.Unflatten(1, torch.Size([4])), layers.Unflatten, (1, (4,)), {}),
        (T.Unfold(3, padding=1), layers.Unfold, (3,), {"padding": 1}),
        (T.Fold((4, 4), 2, stride=(2, 2)), layers.Fold, (4, 2), {"stride": 2}),
    ],
    ids=lambda value: str(value) if isinstance(value, torch.nn.Module) else "",
)
def test_what_is_built(
    module: torch.nn.Module, target: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    spec = spec_for(module)
    assert (spec.target, spec.args, spec.kwargs) == (target, args, kwargs)


def test_flattening_keeps_torch_order() -> None:
    assert spec_for(T.Flatten()).axes is Axes.LOGICAL
    assert spec_for(T.Unflatten(1, (2, 2))).axes is Axes.LOGICAL
