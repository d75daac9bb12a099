"""Rules for Upsample, UpsamplingNearest2d and UpsamplingBilinear2d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.nn as nn
import torch

from mlxport import layers
from mlxport.converter.rules.registry import LayerSpec, changed, compacted, rule

_DEFAULTS = {
    "size": None,
    "scale_factor": None,
    "mode": "nearest",
    "align_corners": None,
    "recompute_scale_factor": None,
}
_NEAREST = [f"aten.upsample_nearest{rank}d.vec" for rank in (1, 2, 3)]
_OTHERS = [
    *(f"aten._upsample_nearest_exact{rank}d.vec" for rank in (1, 2, 3)),
    *(f"aten.adaptive_avg_pool{rank}d.default" for rank in (1, 2, 3)),
    "aten.upsample_linear1d.vec",
    "aten.upsample_bilinear2d.vec",
    "aten.upsample_bicubic2d.vec",
    "aten.upsample_trilinear3d.vec",
]


@rule(
    torch.nn.Upsample,
    ops=[*_NEAREST, *_OTHERS],
    target="mlx.nn.Upsample, layers.Upsample",
)
@rule(
    torch.nn.UpsamplingNearest2d,
    ops=["aten.upsample_nearest2d.vec"],
    target="mlx.nn.Upsample, layers.Upsample",
)
@rule(
    torch.nn.UpsamplingBilinear2d,
    ops=["aten.upsample_bilinear2d.vec"],
    target="layers.Upsample",
)
def upsample(module: Any) -> LayerSpec:
    """MLX's for nearest neighbours at powers of two, otherwise ``layers.Upsample``."""
    factor = _tidy(module.scale_factor)
    if module.mode == "nearest" and module.size is None and _is_power_of_two(factor):
        return LayerSpec(nn.Upsample, (), {"scale_factor": factor})
    arguments = changed(
        _DEFAULTS,
        size=module.size,
        scale_factor=factor,
        mode=module.mode,
        align_corners=module.align_corners,
        recompute_scale_factor=module.recompute_scale_factor,
    )
    return LayerSpec(layers.Upsample, (), arguments)


def _tidy(factor: float | Sequence[float] | None) -> Any:
    """Return the factor in its shortest form: 2 for 2.0, one number if all are equal."""
    if factor is None:
        return None
    several = factor if isinstance(factor, Sequence) else (factor,)
    tidy = tuple(int(f) if float(f).is_integer() else float(f) for f in several)
    return compacted(tidy)


def _is_power_of_two(factor: Any) -> bool:
    several = factor if isinstance(factor, tuple) else (factor,)
    return all(isinstance(f, int) and f > 0 and f & (f - 1) == 0 for f in several)
