"""Rules for max, average, power-average, adaptive and fractional pooling, and max unpooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mlx.nn as nn
import torch

from mlxport import layers
from mlxport.converter.plan.weight_plan import Entry
from mlxport.converter.rules.registry import LayerSpec, Refusal, changed, compacted, rule

_MAX = (torch.nn.MaxPool1d, torch.nn.MaxPool2d, torch.nn.MaxPool3d)
_AVG = (torch.nn.AvgPool1d, torch.nn.AvgPool2d, torch.nn.AvgPool3d)
_LP = (torch.nn.LPPool1d, torch.nn.LPPool2d, torch.nn.LPPool3d)
_UNPOOL = (torch.nn.MaxUnpool1d, torch.nn.MaxUnpool2d, torch.nn.MaxUnpool3d)
_ADAPTIVE_AVG = (
    torch.nn.AdaptiveAvgPool1d,
    torch.nn.AdaptiveAvgPool2d,
    torch.nn.AdaptiveAvgPool3d,
)
_ADAPTIVE_MAX = (
    torch.nn.AdaptiveMaxPool1d,
    torch.nn.AdaptiveMaxPool2d,
    torch.nn.AdaptiveMaxPool3d,
)
_DEFAULTS = {
    "padding": 0,
    "dilation": 1,
    "return_indices": False,
    "ceil_mode": False,
    "count_include_pad": True,
    "divisor_override": None,
}
_LARGEST_SUM = 27  # elements MLX may sum in float16: all of a 3 x 3 x 3 window
_WIDEST_PADDING = 16  # MLX's layers store what they pad; ours do not beyond the input's size
_DRAWN = "windows are drawn by MLX's generator, unless the module holds _random_samples"
_LP_OPS = ("pow.Tensor_Scalar", "sign.default", "abs.default", "relu.default", "mul.Tensor")


@rule(
    torch.nn.MaxPool1d, ops=["aten.max_pool1d.default"], target="mlx.nn.MaxPool1d, layers.MaxPool1d"
)
@rule(
    torch.nn.MaxPool2d, ops=["aten.max_pool2d.default"], target="mlx.nn.MaxPool2d, layers.MaxPool2d"
)
@rule(
    torch.nn.MaxPool3d, ops=["aten.max_pool3d.default"], target="mlx.nn.MaxPool3d, layers.MaxPool3d"
)
def max_pool(module: Any) -> LayerSpec:
    """MLX's where it has the configuration, otherwise ours of the same name."""
    native = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
    ours = (layers.MaxPool1d, layers.MaxPool2d, layers.MaxPool3d)
    return _pool(module, _MAX, native, ours, ("dilation", "return_indices", "ceil_mode"))


@rule(
    torch.nn.AvgPool1d, ops=["aten.avg_pool1d.default"], target="mlx.nn.AvgPool1d, layers.AvgPool1d"
)
@rule(
    torch.nn.AvgPool2d, ops=["aten.avg_pool2d.default"], target="mlx.nn.AvgPool2d, layers.AvgPool2d"
)
@rule(
    torch.nn.AvgPool3d, ops=["aten.avg_pool3d.default"], target="mlx.nn.AvgPool3d, layers.AvgPool3d"
)
def avg_pool(module: Any) -> LayerSpec:
    """MLX's where it has the configuration, otherwise ours of the same name.

    MLX's sums float16 in float16, so large windows overflow at 65504: they become ours.
    """
    ours = (layers.AvgPool1d, layers.AvgPool2d, layers.AvgPool3d)
    large = math.prod(_per_axis(module.kernel_size, _rank(module, _AVG))) > _LARGEST_SUM
    native = ours if large else (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
    return _pool(module, _AVG, native, ours, ("ceil_mode", "count_include_pad", "divisor_override"))


def _pool(
    module: Any,
    sources: Sequence[type[torch.nn.Module]],
    native: Sequence[type[nn.Module]],
    ours: Sequence[type[nn.Module]],
    extras: Sequence[str],
) -> LayerSpec:
    rank = _rank(module, sources)
    _check_padding(module, rank)
    padding = changed(_DEFAULTS, padding=module.padding)
    further = {name: getattr(module, name, _DEFAULTS[name]) for name in extras}
    if not padding:
        further["count_include_pad"] = True  # there is none to count
    further = changed(_DEFAULTS, **further)
    wide = max(_per_axis(module.padding, rank)) > _WIDEST_PADDING
    return LayerSpec(
        (ours if further or wide else native)[rank - 1],
        (compacted(module.kernel_size),),
        {"stride": compacted(module.stride), **padding, **further},
        rank=rank,
        standalone=ours[rank - 1],
    )


@rule(
    torch.nn.LPPool1d,
    ops=["aten.avg_pool1d.default", *(f"aten.{op}" for op in _LP_OPS)],
    target="layers.LPPool1d",
)
@rule(
    torch.nn.LPPool2d,
    ops=["aten.avg_pool2d.default", *(f"aten.{op}" for op in _LP_OPS)],
    target="layers.LPPool2d",
)
@rule(
    torch.nn.LPPool3d,
    ops=["aten.avg_pool3d.default", *(f"aten.{op}" for op in _LP_OPS)],
    target="layers.LPPool3d",
)
def lp_pool(module: Any) -> LayerSpec:
    """Our layer of the same name: MLX has none."""
    rank = _rank(module, _LP)
    stride = {} if module.stride is None else {"stride": compacted(module.stride)}
    return LayerSpec(
        (layers.LPPool1d, layers.LPPool2d, layers.LPPool3d)[rank - 1],
        (module.norm_type, compacted(module.kernel_size)),
        {**stride, **changed(_DEFAULTS, ceil_mode=module.ceil_mode)},
        rank=rank,
    )


@rule(
    torch.nn.AdaptiveAvgPool1d,
    ops=["aten.adaptive_avg_pool1d.default"],
    target="layers.AdaptiveAvgPool1d",
)
@rule(
    torch.nn.AdaptiveAvgPool2d,
    ops=["aten.adaptive_avg_pool2d.default"],
    target="layers.AdaptiveAvgPool2d",
)
@rule(
    torch.nn.AdaptiveAvgPool3d,
    ops=["aten.adaptive_avg_pool3d.default"],
    target="layers.AdaptiveAvgPool3d",
)
def adaptive_avg_pool(module: Any) -> LayerSpec:
    """Our layer of the same name: MLX has none."""
    rank = _rank(module, _ADAPTIVE_AVG)
    targets = (layers.AdaptiveAvgPool1d, layers.AdaptiveAvgPool2d, layers.AdaptiveAvgPool3d)
    return LayerSpec(targets[rank - 1], (compacted(module.output_size),), rank=rank)


@rule(
    torch.nn.AdaptiveMaxPool1d,
    ops=["aten.adaptive_max_pool1d.default"],
    target="layers.AdaptiveMaxPool1d",
)
@rule(
    torch.nn.AdaptiveMaxPool2d,
    ops=["aten.adaptive_max_pool2d.default"],
    target="layers.AdaptiveMaxPool2d",
)
@rule(
    torch.nn.AdaptiveMaxPool3d,
    ops=["aten.adaptive_max_pool3d.default"],
    target="layers.AdaptiveMaxPool3d",
)
def adaptive_max_pool(module: Any) -> LayerSpec:
    """Our layer of the same name: MLX has none."""
    rank = _rank(module, _ADAPTIVE_MAX)
    targets = (layers.AdaptiveMaxPool1d, layers.AdaptiveMaxPool2d, layers.AdaptiveMaxPool3d)
    indices = changed(_DEFAULTS, return_indices=module.return_indices)
    return LayerSpec(targets[rank - 1], (compacted(module.output_size),), indices, rank=rank)


@rule(
    torch.nn.MaxUnpool1d,
    ops=["aten.max_unpool2d.default", "aten.unsqueeze.default", "aten.squeeze.dim"],
    target="layers.MaxUnpool1d",
)
@rule(torch.nn.MaxUnpool2d, ops=["aten.max_unpool2d.default"], target="layers.MaxUnpool2d")
@rule(torch.nn.MaxUnpool3d, ops=["aten.max_unpool3d.default"], target="layers.MaxUnpool3d")
def max_unpool(module: Any) -> LayerSpec:
    """Our layer of the same name: MLX has none."""
    rank = _rank(module, _UNPOOL)
    return LayerSpec(
        (layers.MaxUnpool1d, layers.MaxUnpool2d, layers.MaxUnpool3d)[rank - 1],
        (compacted(module.kernel_size),),
        {"stride": compacted(module.stride), **changed(_DEFAULTS, padding=module.padding)},
        rank=rank,
    )


@rule(
    torch.nn.FractionalMaxPool2d,
    target="layers.FractionalMaxPool2d",
    restrictions=_DRAWN,
    leaf=False,
)
@rule(
    torch.nn.FractionalMaxPool3d,
    target="layers.FractionalMaxPool3d",
    restrictions=_DRAWN,
    leaf=False,
)
def fractional_max_pool(module: Any) -> LayerSpec:
    """Our layer of the same name: MLX has none. Random samples of the module become a parameter."""
    samples: torch.Tensor | None = module._random_samples
    rank = 2 if isinstance(module, torch.nn.FractionalMaxPool2d) else 3
    extras = {"output_ratio": None, "return_indices": False}
    found = {name: getattr(module, name) for name in extras}
    size = {} if module.output_size is None else {"output_size": compacted(module.output_size)}
    shape = {} if samples is None else {"samples_shape": tuple(samples.shape)}
    entries = () if samples is None else (Entry(("_random_samples",), ("random_samples",)),)
    return LayerSpec(
        layers.FractionalMaxPool2d if rank == 2 else layers.FractionalMaxPool3d,
        (compacted(module.kernel_size),),
        {**size, **changed(extras, **found), **shape},
        entries=entries,
        rank=rank,
    )


def _rank(module: Any, classes: Sequence[type[torch.nn.Module]]) -> int:
    """Return the number of spatial axes: the position of the module's class, from 1-D to 3-D."""
    return next(rank for rank, cls in enumerate(classes, start=1) if isinstance(module, cls))


def _per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, Sequence) else (value,)
    return numbers * rank if len(numbers) == 1 else numbers


def _check_padding(module: Any, rank: int) -> None:
    kernel, padding = _per_axis(module.kernel_size, rank), _per_axis(module.padding, rank)
    if any(2 * pad > size for size, pad in zip(kernel, padding, strict=True)):
        raise Refusal(
            f"padding={module.padding} exceeds half of kernel_size={module.kernel_size}, which "
            "PyTorch constructs but cannot run"
        )
