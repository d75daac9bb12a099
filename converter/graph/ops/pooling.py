"""Handlers of pooling called as a function: ``torch.nn.functional.*_pool*``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxport.converter.graph.ir.code import OMIT, expression
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.arguments import FLOATING_ONLY, PerAxis, per_axis, require_floating
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.pooling import adaptive, fractional, functions, indexed


@op("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default")
def max_pool(
    cx: Context,
    x: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Value:
    """``torch.nn.functional.max_pool{1,2,3}d``."""
    x = _channels_last(cx, x, kernel_size)
    settings = {
        **_windows(kernel_size, stride, padding),
        "dilation": per_axis(dilation, 1),
        "ceil_mode": ceil_mode or OMIT,
    }
    kernel = tuple(kernel_size)
    return cx.function(functions.max_pool, x, kernel, order=x.order, **settings)


@op("aten.max_pool1d_with_indices.default", restrictions=FLOATING_ONLY)
@op("aten.max_pool2d_with_indices.default", restrictions=FLOATING_ONLY)
@op("aten.max_pool3d_with_indices.default", restrictions=FLOATING_ONLY)
def max_pool_with_indices(
    cx: Context,
    x: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> tuple[Value, ...]:
    """``max_pool{1,2,3}d`` with ``return_indices=True``: the maxima and where they were."""
    require_floating(cx, "pooling", x)
    x = _channels_last(cx, x, kernel_size)
    return cx.function_many(
        indexed.max_pool_with_indices,
        x,
        tuple(kernel_size),
        orders=[x.order, x.order],
        **_windows(kernel_size, stride, padding),
        dilation=per_axis(dilation, 1),
        ceil_mode=ceil_mode or OMIT,
    )


@op("aten.avg_pool1d.default", restrictions=FLOATING_ONLY)
@op("aten.avg_pool2d.default", "aten.avg_pool3d.default", restrictions=FLOATING_ONLY)
def avg_pool(
    cx: Context,
    x: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """``torch.nn.functional.avg_pool{1,2,3}d``."""
    require_floating(cx, "pooling", x)
    x = _channels_last(cx, x, kernel_size)
    settings = {
        **_windows(kernel_size, stride, padding),
        "ceil_mode": ceil_mode or OMIT,
        "count_include_pad": OMIT if count_include_pad else False,
        "divisor_override": OMIT if divisor_override is None else divisor_override,
    }
    kernel = tuple(kernel_size)
    return cx.function(functions.avg_pool, x, kernel, order=x.order, **settings)


@op("aten.adaptive_avg_pool1d.default", restrictions=FLOATING_ONLY)
@op("aten.adaptive_avg_pool2d.default", restrictions=FLOATING_ONLY)
@op("aten.adaptive_avg_pool3d.default", restrictions=FLOATING_ONLY)
@op("aten._adaptive_avg_pool2d.default", restrictions=FLOATING_ONLY)
@op("aten._adaptive_avg_pool3d.default", restrictions=FLOATING_ONLY)
def adaptive_avg_pool(cx: Context, x: Value, output_size: Sequence[int]) -> Value:
    """``torch.nn.functional.adaptive_avg_pool{1,2,3}d``."""
    require_floating(cx, "pooling", x)
    x = _channels_last(cx, x, output_size)
    size = tuple(output_size)
    return cx.function(adaptive.adaptive_avg_pool, x, size, order=x.order)


@op("aten.adaptive_max_pool1d.default", restrictions=FLOATING_ONLY)
@op("aten.adaptive_max_pool2d.default", restrictions=FLOATING_ONLY)
@op("aten.adaptive_max_pool3d.default", restrictions=FLOATING_ONLY)
def adaptive_max_pool(cx: Context, x: Value, output_size: Sequence[int]) -> tuple[Value, ...]:
    """``torch.nn.functional.adaptive_max_pool{1,2,3}d`` and where the maxima were.

    PyTorch always computes the indices, which are rarely read: a separate statement gives them,
    dead code elimination removes it.
    """
    require_floating(cx, "pooling", x)
    x = _channels_last(cx, x, output_size)
    size = tuple(output_size)
    maxima = cx.function(adaptive.adaptive_max_pool, x, size, order=x.order)
    both = cx.calling(adaptive.adaptive_max_pool_with_indices, x, size)
    indices = expression("both[1]", {"both": both})
    return maxima, cx.compute(indices, *cx.results[1], x.order)


@op("aten.fractional_max_pool2d.default", restrictions=FLOATING_ONLY)
@op("aten.fractional_max_pool3d.default", restrictions=FLOATING_ONLY)
def fractional_max_pool(
    cx: Context,
    x: Value,
    kernel_size: Sequence[int],
    output_size: Sequence[int],
    random_samples: Value,
) -> tuple[Value, ...]:
    """``torch.nn.functional.fractional_max_pool{2,3}d`` by random samples that are given."""
    require_floating(cx, "pooling", x)
    x = _channels_last(cx, x, output_size)
    return cx.function_many(
        fractional.fractional_max_pool,
        x,
        tuple(kernel_size),
        tuple(output_size),
        cx.logical(random_samples),
        orders=[x.order, x.order],
    )


def _channels_last(cx: Context, x: Value, per_axis: Sequence[int]) -> Value:
    rank = len(per_axis)
    if x.ndim - rank not in (1, 2):
        raise cx.refuse(f"{rank} sizes for an input of shape {x.shape}: give one per spatial axis")
    return cx.channels_last(x, rank)


def _windows(kernel_size: Sequence[int], stride: Sequence[int], padding: PerAxis) -> dict[str, Any]:
    """Settings of all windows; PyTorch's empty stride means the kernel's size."""
    same = not stride or tuple(stride) == tuple(kernel_size)
    return {"stride": OMIT if same else per_axis(stride), "padding": per_axis(padding, 0)}
