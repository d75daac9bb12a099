"""Find the layers that MLX's Metal backend computes by Winograd's algorithm unless it may not.

Winograd F(6x6, 3x3) rounds several times as much as the products it saves (about 20 times PyTorch's
float32 noise, more where few values are large), so that a right conversion may fail there.
``MLX_CONV_WINOGRAD=0`` forbids it. The conditions are those of `metal_table`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mlx.nn as nn

from mlxport.converter.parity.run.metal_table import (
    DEEPEST_KERNEL,
    WINOGRAD_CHANNELS,
    WINOGRAD_MULTIPLE,
    WINOGRAD_PIXELS,
)
from mlxport.converter.parity.run.trace import modules_at
from mlxport.converter.plan.record import Conversion, Layout


def winograd_note(model: nn.Module, conversion: Conversion) -> str:
    """Return the note of a report on such layers; empty where there are none.

    Args:
        model: the MLX model.
        conversion: the record of it; a size that may change counts as large.

    Raises:
        ParityError: the record names modules that the model has not.
    """
    paths = list(dict.fromkeys(_paths(model, conversion)))
    if not paths:
        return ""
    first = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    return (
        f"on Metal, MLX computes {first} by Winograd's algorithm, which rounds more, unless "
        "MLX_CONV_WINOGRAD=0 is set, as it is while parity is judged; "
        "`mlxport verify --fast-math` measures what it costs"
    )


def _paths(model: nn.Module, conversion: Conversion) -> Iterator[str]:
    modules = modules_at(model, [record.target for record in conversion.modules])
    for record in conversion.modules:
        module = modules[record.target]
        if not isinstance(module, (nn.Conv2d, nn.Conv3d)) or not record.inputs:
            continue
        if _fits(module) and _is_large(record.inputs[0], module):
            yield record.path


def _fits(module: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether the algorithm serves a layer's kernel and channels."""
    outputs, *kernel, inputs = module.weight.shape
    depth = len(kernel) - 2
    padding = _per_axis(module.padding, len(kernel))
    return (
        kernel[depth:] == [3, 3]
        and all(size <= DEEPEST_KERNEL for size in kernel[:depth])
        and set(_per_axis(module.stride, len(kernel))) == {1}
        and set(_per_axis(module.dilation, len(kernel))) == {1}
        and getattr(module, "groups", 1) == 1
        and not any(padding[:depth])
        and inputs % WINOGRAD_MULTIPLE == outputs % WINOGRAD_MULTIPLE == 0
        and inputs + outputs >= WINOGRAD_CHANNELS
    )


def _is_large(layout: Layout, module: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether an input has as many pixels as the algorithm is used for."""
    shape = layout.shape if len(layout.shape) == module.weight.ndim else (1, *layout.shape)
    batch, _, *sizes = shape
    if isinstance(module, nn.Conv3d) and isinstance(batch, int) and batch > 1:
        return False
    pixels = [size for size in (batch, *sizes[-2:]) if isinstance(size, int)]
    return len(pixels) < 3 or math.prod(pixels) >= WINOGRAD_PIXELS


def _per_axis(value: Any, rank: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
