"""Handlers of order statistics: ranks, quantiles, modes, running extremes, sorted search."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from mlxport.converter.graph.ir.code import OMIT, expression
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import (
    Number,
    cast_to,
    emit_function,
    mlx_dtype,
    number,
    torch_promoted,
    typed,
)
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.graph.ir.value import Value, without_axes
from mlxport.converter.graph.ops.axes import stored_axis
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.ops.sorting import of_scalar
from mlxport.layers.arrays import order_statistics, searching

WHICH = "which of equal values' places is given, PyTorch leaves open"


def _pair(
    cx: Context,
    function: Callable[..., Any],
    x: Value,
    dim: int,
    keepdim: bool,
    **settings: Any,
) -> tuple[Value, ...]:
    """Emit a function of ``layers/arrays/order_statistics.py`` that gives values and places."""
    if x.ndim == 0:
        return of_scalar(cx, x)
    axis = stored_axis(x, dim)
    order = x.order if keepdim else without_axes(x.order, [dim % x.ndim])
    return cx.function_many(
        function,
        x,
        orders=[order, order],
        **settings,
        axis=OMIT if axis == -1 else axis,
        keepdims=keepdim or OMIT,
    )


@op("aten.kthvalue.default", restrictions=WHICH)
def kthvalue(
    cx: Context, x: Value, k: int, dim: int = -1, keepdim: bool = False
) -> tuple[Value, ...]:
    """The ``k``-th smallest values along an axis and their places."""
    return _pair(cx, order_statistics.kth_value, x, dim, keepdim, k=k)


def _median(function: Callable[..., Any]) -> Handler:
    def along(cx: Context, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, ...]:
        return _pair(cx, function, x, dim, keepdim)

    return along


def _median_of_all(function: Callable[..., Any]) -> Handler:
    def of_all(cx: Context, x: Value) -> Value:
        if 0 in x.shape:
            raise cx.refuse("a median of no values")
        flat = expression("x.reshape(-1)", {"x": x})
        return cx.emit("both[0]", both=cx.calling(function, flat))

    return of_all


for _function in (order_statistics.median, order_statistics.nanmedian):
    op(f"aten.{_function.__name__}.dim", restrictions=WHICH)(_median(_function))
    op(f"aten.{_function.__name__}.default")(_median_of_all(_function))


@cache
def _exact_places() -> bool:
    """Whether PyTorch finds the places of quantiles in float64: from 2.14 on.

    ``0.7`` of ten is 7 where it is rounded to float32, and less where the float32 number is not.
    """
    return torch.quantile(torch.arange(11.0, device="cpu"), 0.7, interpolation="lower").item() < 7


def _quantile(ignore_nan: bool) -> Handler:
    def quantile(
        cx: Context,
        x: Value,
        q: Value | float,
        dim: int | None = None,
        keepdim: bool = False,
        *,
        interpolation: str = "linear",
    ) -> Value:
        reduced = [*range(x.ndim)] if dim is None else [dim % max(x.ndim, 1)]
        order = x.order if keepdim else without_axes(x.order, reduced[: x.ndim])
        if isinstance(q, Value) and q.ndim:  # the axis of the quantiles comes first
            order = (0, *(axis + 1 for axis in order))
        return cx.function(
            order_statistics.quantile,
            x,
            q,
            axis=OMIT if dim is None or not x.ndim else stored_axis(x, dim),
            keepdims=keepdim or OMIT,
            interpolation=OMIT if interpolation == "linear" else interpolation,
            ignore_nan=ignore_nan or OMIT,
            exact_places=_exact_places() or OMIT,
            order=order,
        )

    return quantile


for _name in ("quantile", "nanquantile"):
    op(
        f"aten.{_name}.default",
        f"aten.{_name}.scalar",
        restrictions="an input `q` outside [0, 1] gives NaN, where PyTorch raises",
    )(_quantile(ignore_nan=_name == "nanquantile"))


@op("aten.mode.default", restrictions=WHICH)
def mode(cx: Context, x: Value, dim: int = -1, keepdim: bool = False) -> tuple[Value, ...]:
    """The commonest values along an axis and their places."""
    return _pair(cx, order_statistics.mode, x, dim, keepdim)


def _running(function: Callable[..., Any]) -> Handler:
    def running(cx: Context, x: Value, dim: int) -> tuple[Value, ...]:
        if x.ndim == 0:
            return of_scalar(cx, x)
        axis = stored_axis(x, dim)
        return cx.function_many(
            function,
            x,
            orders=[x.order, x.order],
            axis=OMIT if axis == -1 else axis,
        )

    return running


op("aten.cummax.default")(_running(order_statistics.cumulative_max))
op("aten.cummin.default")(_running(order_statistics.cumulative_min))


# -- places in sorted sequences ------------------------------------------------------------------


@op("aten.searchsorted.Tensor", "aten.searchsorted.Scalar", restrictions="without a sorter")
def searchsorted(
    cx: Context,
    sequence: Value,
    values: Value | Number,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Value | None = None,
) -> Value:
    """Where values belong in sequences sorted along the last axis."""
    if sorter is not None:
        raise cx.refuse("searchsorted with a sorter: gather the sequence by it first")
    dtype = torch_promoted(sequence, values)
    if isinstance(values, Value):
        sought = cast_to(cx.logical(values), dtype)
    else:
        operands = {"v": number(values, dtype), "dtype": mlx_dtype(dtype)}
        sought = typed("mx.array(v, dtype=dtype)", dtype, **operands)
    return emit_function(
        cx,
        searching.searchsorted,
        torch.int64,
        None,
        cast_to(cx.logical(sequence), dtype),
        sought,
        right=(right or side == "right") or OMIT,
    )


@op("aten.bucketize.Tensor", "aten.bucketize.Scalar")
def bucketize(
    cx: Context,
    values: Value | Number,
    boundaries: Value,
    *,
    out_int32: bool = False,
    right: bool = False,
) -> Value:
    """The bucket that each value falls in."""
    return searchsorted(cx, boundaries, values, right=right)
