"""Handlers that move elements between channels and space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value, channels_last
from mlxport.converter.graph.ops.arguments import per_axis
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.spatial import folding, shuffle


@op("aten.pixel_shuffle.default")
def pixel_shuffle(cx: Context, x: Value, upscale_factor: int) -> Value:
    """``torch.nn.functional.pixel_shuffle``."""
    x = cx.channels_last(x, 2)
    return cx.function(shuffle.pixel_shuffle, x, upscale_factor, order=x.order)


@op("aten.pixel_unshuffle.default")
def pixel_unshuffle(cx: Context, x: Value, downscale_factor: int) -> Value:
    """``torch.nn.functional.pixel_unshuffle``."""
    x = cx.channels_last(x, 2)
    return cx.function(shuffle.pixel_unshuffle, x, downscale_factor, order=x.order)


@op("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def channel_shuffle(cx: Context, x: Value, groups: int) -> Value:
    """``torch.nn.functional.channel_shuffle``."""
    x = cx.channels_last(x)
    return cx.function(shuffle.channel_shuffle, x, groups, order=x.order)


@op("aten.im2col.default")
def im2col(
    cx: Context,
    x: Value,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """``torch.nn.functional.unfold``: ``(N, C, H, W)`` to ``(N, C·kH·kW, L)``."""
    settings = _blocks(dilation, padding, stride)
    order = channels_last(x.ndim - 1, x.ndim - 3)
    x = cx.channels_last(x, 2)
    return cx.function(folding.unfold, x, tuple(kernel_size), order=order, **settings)


@op("aten.col2im.default")
def col2im(
    cx: Context,
    x: Value,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """``torch.nn.functional.fold``: ``(N, C·kH·kW, L)`` to ``(N, C, H, W)``."""
    settings = _blocks(dilation, padding, stride)
    order = channels_last(x.ndim + 1, x.ndim - 2)
    sizes = tuple(output_size), tuple(kernel_size)
    x = cx.channels_last(x, 1)
    return cx.function(folding.fold, x, *sizes, order=order, **settings)


def _blocks(
    dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> dict[str, Any]:
    return {
        "dilation": per_axis(dilation, 1),
        "padding": per_axis(padding, 0),
        "stride": per_axis(stride, 1),
    }
