from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.nn as nn
import pytest
import torch

from mlxport import layers
from mlxport.converter.rules.build import spec_for

SHAPE = (7, 6, 5)
SMOOTH = [(1, "linear"), (2, "bilinear"), (3, "trilinear"), (2, "bicubic")]
MODES = [*SMOOTH, *((r, mode) for r in (1, 2, 3) for mode in ("nearest", "nearest-exact", "area"))]
TARGETS = {
    "double": {"scale_factor": 2},
    "triple": {"scale_factor": 3},
    "by 1.7": {"scale_factor": 1.7},
    "recomputed": {"scale_factor": 1.7, "recompute_scale_factor": True},
    "halve": {"scale_factor": 0.5},
    "size": {"size": (9, 3, 11)},
}


def picture(rank: int) -> torch.Tensor:
    return torch.randn(2, 3, *SHAPE[:rank])


def upsample(rank: int, target: dict[str, Any], **options: Any) -> torch.nn.Upsample:
    target = {k: v[:rank] if isinstance(v, tuple) else v for k, v in target.items()}
    return torch.nn.Upsample(**target, **options)


@pytest.mark.parametrize(("rank", "mode"), MODES)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_forward_and_gradients(
    assert_layer_parity: Callable[..., None], rank: int, mode: str, target: dict[str, Any]
) -> None:
    assert_layer_parity(upsample(rank, target, mode=mode), picture(rank), gradients=True)


@pytest.mark.parametrize(("rank", "mode"), SMOOTH)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_aligned_corners(
    assert_layer_parity: Callable[..., None], rank: int, mode: str, target: dict[str, Any]
) -> None:
    module = upsample(rank, target, mode=mode, align_corners=True)
    assert_layer_parity(module, picture(rank), gradients=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rank", "mode"), [m for m in MODES if m != (3, "area")])  # not in torch
def test_half_precision(
    assert_layer_parity: Callable[..., None], rank: int, mode: str, dtype: torch.dtype
) -> None:
    module = torch.nn.Upsample(scale_factor=2, mode=mode)
    assert_layer_parity(module, picture(rank), dtype=dtype)


@pytest.mark.parametrize(
    "target", [TARGETS["double"], TARGETS["by 1.7"], {"size": (9, 3)}], ids=str
)
@pytest.mark.parametrize("source", [torch.nn.UpsamplingNearest2d, torch.nn.UpsamplingBilinear2d])
def test_old_names(
    assert_layer_parity: Callable[..., None], source: type, target: dict[str, Any]
) -> None:
    assert_layer_parity(source(**target), picture(2), gradients=True)


@pytest.mark.parametrize(
    ("module", "target", "kwargs"),
    [
        (torch.nn.Upsample(scale_factor=2), nn.Upsample, {"scale_factor": 2}),
        (torch.nn.Upsample(scale_factor=(1, 2, 4)), nn.Upsample, {"scale_factor": (1, 2, 4)}),
        (torch.nn.UpsamplingNearest2d(scale_factor=2), nn.Upsample, {"scale_factor": 2}),
        (torch.nn.Upsample(scale_factor=3), layers.Upsample, {"scale_factor": 3}),
        (torch.nn.Upsample(scale_factor=0.5), layers.Upsample, {"scale_factor": 0.5}),
        (torch.nn.Upsample(size=8), layers.Upsample, {"size": 8}),
        (
            torch.nn.Upsample(scale_factor=(2, 2, 2), mode="trilinear", align_corners=False),
            layers.Upsample,
            {"scale_factor": 2, "mode": "trilinear", "align_corners": False},
        ),
        (
            torch.nn.UpsamplingBilinear2d(size=(4, 5)),
            layers.Upsample,
            {"size": (4, 5), "mode": "bilinear", "align_corners": True},
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, torch.nn.Module) else "",
)
def test_what_is_built(module: torch.nn.Module, target: type, kwargs: dict[str, Any]) -> None:
    spec = spec_for(module)
    assert (spec.target, spec.args, spec.kwargs) == (target, (), kwargs)
