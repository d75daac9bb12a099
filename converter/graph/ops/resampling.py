"""Handlers that resize spatial axes, and sample at arbitrary points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxport.converter.graph.ir.code import OMIT
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.arguments import FLOATING_ONLY, require_floating
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.spatial import grid_sample, resampling

Scales = Sequence[float]

# ATen op -> the mode torch.nn.functional.interpolate knows it by.
NEAREST = {
    **{f"aten.upsample_nearest{rank}d": "nearest" for rank in (1, 2, 3)},
    **{f"aten._upsample_nearest_exact{rank}d": "nearest-exact" for rank in (1, 2, 3)},
}
SMOOTH = {
    "aten.upsample_linear1d": "linear",
    "aten.upsample_bilinear2d": "bilinear",
    "aten.upsample_trilinear3d": "trilinear",
    "aten.upsample_bicubic2d": "bicubic",
}
ANTIALIASED = {
    "aten._upsample_bilinear2d_aa": "bilinear",
    "aten._upsample_bicubic2d_aa": "bicubic",
}
GRID_MODES = ("bilinear", "nearest", "bicubic")
GRID_PADDING_MODES = ("zeros", "border", "reflection")


def _nearest(mode: str) -> tuple[Handler, Handler]:
    """Both overloads: with either size or factors, and with the size and perhaps factors."""

    def vec(cx: Context, x: Value, size: Sequence[int] | None, scales: Scales | None) -> Value:
        return _interpolate(cx, x, size, scales, mode)

    def default(
        cx: Context, x: Value, size: Sequence[int], *scales: float | None, **named: float
    ) -> Value:
        return _resample(cx, x, size, [*scales, *named.values()], mode)

    return vec, default


def _smooth(mode: str, antialias: bool) -> tuple[Handler, Handler]:
    def vec(
        cx: Context,
        x: Value,
        size: Sequence[int] | None,
        align_corners: bool,
        scales: Scales | None,
    ) -> Value:
        return _interpolate(cx, x, size, scales, mode, align_corners, antialias)

    def default(
        cx: Context,
        x: Value,
        size: Sequence[int],
        align_corners: bool,
        *scales: float | None,
        **named: float,
    ) -> Value:
        return _resample(cx, x, size, [*scales, *named.values()], mode, align_corners, antialias)

    return vec, default


def _register(name: str, handlers: tuple[Handler, Handler], restrictions: str = "") -> None:
    for overload, handler in zip(("vec", "default"), handlers, strict=True):
        op(f"{name}.{overload}", restrictions=restrictions)(handler)


for _name, _mode in NEAREST.items():
    _register(_name, _nearest(_mode))
for _name, _mode in SMOOTH.items():
    _register(_name, _smooth(_mode, antialias=False), FLOATING_ONLY)
for _name, _mode in ANTIALIASED.items():
    _register(_name, _smooth(_mode, antialias=True), FLOATING_ONLY)


def _interpolate(
    cx: Context,
    x: Value,
    size: Sequence[int] | None,
    scales: Scales | None,
    mode: str,
    align_corners: bool = False,
    antialias: bool = False,
) -> Value:
    if not mode.startswith("nearest"):
        require_floating(cx, f"{mode} interpolation", x)
    x = cx.channels_last(x)
    return cx.function(
        resampling.interpolate,
        x,
        order=x.order,
        size=OMIT if size is None else tuple(size),
        scale_factor=OMIT if scales is None else _factor(scales),
        mode=OMIT if mode == "nearest" else mode,
        align_corners=align_corners or OMIT,
        antialias=antialias or OMIT,
    )


def _resample(
    cx: Context,
    x: Value,
    size: Sequence[int],
    scales: Sequence[float | None],
    mode: str,
    align_corners: bool = False,
    antialias: bool = False,
) -> Value:
    if not mode.startswith("nearest"):
        require_floating(cx, f"{mode} interpolation", x)
    x = cx.channels_last(x)
    rank = x.ndim - 2
    given = (*scales, *[None] * (rank - len(scales)))
    return cx.function(
        resampling.resample,
        x,
        tuple(size),
        mode,
        order=x.order,
        scales=OMIT if given == (None,) * rank else given,
        align_corners=align_corners or OMIT,
        antialias=antialias or OMIT,
    )


def _factor(scales: Scales) -> Any:
    """Write scale factors as one number where all axes agree, whole ones as integers."""
    numbers = tuple(int(s) if s == int(s) else s for s in scales)
    return numbers[0] if len(set(numbers)) == 1 else numbers


@op("aten.grid_sampler.default", "aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
def grid_sampler(
    cx: Context,
    x: Value,
    grid: Value,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> Value:
    """``torch.nn.functional.grid_sample``."""
    x = cx.channels_last(x)
    return cx.function(
        grid_sample.grid_sample,
        x,
        cx.logical(grid),
        order=x.order,
        mode=GRID_MODES[interpolation_mode] if interpolation_mode else OMIT,
        padding_mode=GRID_PADDING_MODES[padding_mode] if padding_mode else OMIT,
        align_corners=align_corners or OMIT,
    )


@op("aten.affine_grid_generator.default")
def affine_grid(cx: Context, theta: Value, size: Sequence[int], align_corners: bool) -> Value:
    """``torch.nn.functional.affine_grid``."""
    return cx.function(
        grid_sample.affine_grid,
        cx.logical(theta),
        tuple(size),
        align_corners=align_corners or OMIT,
    )
