"""Handlers of convolutions called as functions: ``torch.nn.functional.conv*``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.arguments import FLOATING_ONLY, PerAxis, per_axis, require_floating
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.plan.steps import axes_to_last
from mlxport.layers.conv import functions, transpose, transpose_weight


@op("aten.conv1d.default", "aten.conv1d.padding", restrictions=FLOATING_ONLY)
@op("aten.conv2d.default", "aten.conv2d.padding", restrictions=FLOATING_ONLY)
@op("aten.conv3d.default", "aten.conv3d.padding", restrictions=FLOATING_ONLY)
def conv(
    cx: Context,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: PerAxis = 1,
    padding: str | PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Value:
    """``torch.nn.functional.conv{1,2,3}d``: weight ``(out, in/groups, *k)``."""
    require_floating(cx, "convolution", x)
    rank = weight.ndim - 2
    is_native = x.ndim == rank + 2 and not isinstance(padding, str) and (groups == 1 or rank < 3)
    x = cx.channels_last(x, rank)
    weight = cx.arrange(weight, axes_to_last(weight.ndim, 1))
    settings = {
        "stride": per_axis(stride, 1),
        "padding": padding if isinstance(padding, str) else per_axis(padding, 0),
        "dilation": per_axis(dilation, 1),
        "groups": per_axis(groups, 1),
    }
    if not is_native:
        arrays = (x, weight) if bias is None else (x, weight, bias)
        return cx.function(functions.conv, *arrays, order=x.order, **settings)
    template = (
        f"mx.conv{rank}d(x, weight, stride=stride, padding=padding, dilation=dilation,"
        f" groups=groups)"
    )
    operands: dict[str, Any] = {"x": x, "weight": weight, **settings}
    if bias is None:
        return cx.emit(template, order=x.order, **operands)
    return cx.emit(f"{template} + bias", order=x.order, bias=bias, **operands)


@op("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", restrictions=FLOATING_ONLY)
@op("aten.conv_transpose3d.input", restrictions=FLOATING_ONLY)
def conv_transpose(
    cx: Context,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Value:
    """``torch.nn.functional.conv_transpose{1,2,3}d``: weight ``(in, out/groups, *k)``."""
    require_floating(cx, "transposed convolution", x)
    x = cx.channels_last(x, weight.ndim - 2)
    weight = _transposed_weight(cx, weight, groups)
    arrays = (x, weight) if bias is None else (x, weight, bias)
    return cx.function(
        transpose.conv_transpose,
        *arrays,
        order=x.order,
        stride=per_axis(stride, 1),
        padding=per_axis(padding, 0),
        output_padding=per_axis(output_padding, 0),
        groups=per_axis(groups, 1),
        dilation=per_axis(dilation, 1),
    )


@op("aten.convolution.default", restrictions=FLOATING_ONLY)
def convolution(
    cx: Context,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    """The op that both kinds are when decomposed."""
    if transposed:
        return conv_transpose(
            cx, x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return conv(cx, x, weight, bias, stride, padding, dilation, groups)


def _transposed_weight(cx: Context, weight: Value, groups: int) -> Value:
    if groups == 1:
        return cx.arrange(weight, axes_to_last(weight.ndim, 0))
    inputs, outputs, *kernel = weight.shape
    return cx.function_step(
        transpose_weight.grouped_weight,
        weight,
        cx.logical(weight),
        groups,
        shape=(outputs * groups, *kernel, inputs // groups),
    )
