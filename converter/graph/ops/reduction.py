"""Handlers of reductions: sums, extremes and their indices, norms, running sums.

MLX adds half precision in half precision, and on the CPU the values of a long sum one after
another; such sums go to ``layers/arrays/reduction.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mlxport.converter.graph.ir.code import OMIT
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import (
    HALF,
    Number,
    Typed,
    cast_to,
    emit,
    emit_function,
    typed,
    widened,
)
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.graph.ir.value import Value, normalise_dims, without_axes
from mlxport.converter.graph.ops.axes import stored_axes, stored_axis
from mlxport.converter.graph.ops.conversion import in_dtype
from mlxport.converter.graph.ops.creation import filled
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.arrays import histogram, reduction

ReducedDims = int | Sequence[int] | None
# A function of MLX by its name, or one of mlxport.layers.
Reducer = str | Callable[..., Any]

# MLX's CPU sums add one value after another: more values than this go to layers/arrays/reduction.
LONGEST_SEQUENTIAL_SUM = 1024


def reduce(
    cx: Context,
    function: Reducer,
    x: Value | Typed,
    of: Value,
    dims: ReducedDims,
    keepdim: bool,
    gives: torch.dtype,
    *arguments: Any,
    **settings: Any,
) -> Value:
    """Emit a reduction over logical axes.

    Args:
        cx: the lowering context.
        function: what reduces, with keywords ``axis`` and ``keepdims``.
        x: what is reduced: ``of``, or it in another dtype.
        of: the value whose axes are meant.
        dims: logical axes; all where None or empty.
        keepdim: whether they stay with length one.
        gives: dtype MLX gives.
        *arguments: what the function takes behind the array.
        **settings: further keywords of the function.
    """
    axes = normalise_dims(dims, of.ndim) if of.ndim else ()
    order = of.order if keepdim else without_axes(of.order, axes)
    keep = True if keepdim and of.ndim else OMIT
    axis = stored_axes(of, axes)
    if any(of.shape[dim] == 0 for dim in axes):  # MLX 0.32.4 reads past the end of an empty view
        x = typed("mx.contiguous(x)", x.dtype, x=x)
    return emit_function(
        cx, function, gives, order, x, *arguments, axis=axis, keepdims=keep, **settings
    )


def _is_long(x: Value, dims: ReducedDims) -> bool:
    sizes = [x.shape[d] for d in normalise_dims(dims, x.ndim)] if x.ndim else []
    return not all(isinstance(n, int) for n in sizes) or math.prod(sizes) > LONGEST_SEQUENTIAL_SUM


def _summed(
    cx: Context,
    reducers: tuple[str, Callable[..., Any]],
    of: Value,
    dims: ReducedDims,
    keepdim: bool,
    **settings: Any,
) -> Value:
    """Emit a reduction that adds: by MLX's function for few float32 values, else by mlxport's.

    Args:
        cx: the lowering context.
        reducers: both functions.
        of: what is reduced.
        dims: logical axes; all where None or empty.
        keepdim: whether they stay with length one.
        **settings: further keywords of both functions.
    """
    x = cast_to(of, cx.dtype)
    of_mlx, of_layers = reducers
    function = of_layers if x.dtype in HALF or _is_long(of, dims) else of_mlx
    return reduce(cx, function, x, of, dims, keepdim, x.dtype, **settings)


@op("aten.sum.default", "aten.sum.dim_IntList")
def sum_(
    cx: Context,
    x: Value,
    dim: ReducedDims = None,
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
) -> Value:
    """The sum over some axes; integers and bools are summed as int64."""
    if cx.dtype.is_floating_point:
        return _summed(cx, ("mx.sum", reduction.total), x, dim, keepdim)
    return reduce(cx, "mx.sum", cast_to(x, cx.dtype), x, dim, keepdim, _counted(cx.dtype))


def _counted(dtype: torch.dtype) -> torch.dtype:
    """Return what MLX gives a sum or product in: small integers and truth values are counted."""
    counted = {torch.uint8: torch.uint32, torch.uint16: torch.uint32}
    small = (torch.bool, torch.int8, torch.int16)
    return torch.int32 if dtype in small else counted.get(dtype, dtype)


@op("aten.mean.default", "aten.mean.dim")
def mean(
    cx: Context,
    x: Value,
    dim: ReducedDims = None,
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
) -> Value:
    """The mean over some axes."""
    return _summed(cx, ("mx.mean", reduction.mean), x, dim, keepdim)


@op("aten.var.correction", "aten.var.dim", "aten.var.default")
def var(
    cx: Context,
    x: Value,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Number | None = None,
) -> Value:
    """The variance over some axes, divided by their number of values less the correction."""
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, unbiased = None, dim
    return _spread(
        cx, ("mx.var", reduction.variance), x, dim, keepdim, _correction(unbiased, correction)
    )


@op("aten.std.correction", "aten.std.dim", "aten.std.default")
def std(
    cx: Context,
    x: Value,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Number | None = None,
) -> Value:
    """The square root of the variance."""
    if isinstance(dim, bool):  # std(x, unbiased)
        dim, unbiased = None, dim
    return _spread(
        cx, ("mx.std", reduction.deviation), x, dim, keepdim, _correction(unbiased, correction)
    )


def _correction(unbiased: bool, correction: Number | None) -> Number:
    return (1 if unbiased else 0) if correction is None else correction


def _spread(
    cx: Context,
    reducers: tuple[str, Callable[..., Any]],
    x: Value,
    dim: ReducedDims,
    keepdim: bool,
    correction: Number,
) -> Value:
    if x.dtype.is_complex:
        raise cx.refuse("the variance of complex values")
    if correction != int(correction):
        raise cx.refuse(f"a correction of {correction}: MLX takes whole numbers")
    ddof = int(correction) or OMIT
    return _summed(cx, reducers, x, dim, keepdim, ddof=ddof)


@op("aten.var_mean.correction")
def var_mean(
    cx: Context,
    x: Value,
    dim: ReducedDims = None,
    *,
    correction: Number | None = None,
    keepdim: bool = False,
) -> tuple[Value, Value]:
    """The variance and the mean over some axes."""
    variance = var(cx, x, dim, keepdim=keepdim, correction=correction)
    return variance, mean(cx, x, dim, keepdim)


@op("aten.linalg_vector_norm.default")
def vector_norm(
    cx: Context,
    x: Value,
    ord: Number = 2,
    dim: ReducedDims = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Value:
    """The norm of the vectors along some axes taken together."""
    axes = normalise_dims(dim, x.ndim) if x.ndim else ()
    if ord == 2 and (len(axes) <= 2 or len(axes) == x.ndim):
        return _summed(cx, ("mx.linalg.norm", reduction.norm), x, dim, keepdim)
    vectors = cast_to(x, cx.dtype)
    return reduce(cx, reduction.norm, vectors, x, dim, keepdim, cx.dtype, float(ord))


@op("aten.prod.default")
def prod(cx: Context, x: Value, *, dtype: torch.dtype | None = None) -> Value:
    """The product of all values; integers and bools are multiplied as int64."""
    return prod_dim(cx, x, None)


@op("aten.prod.dim_int")
def prod_dim(
    cx: Context,
    x: Value,
    dim: ReducedDims,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Value:
    """The product over an axis."""
    factors = widened(cast_to(x, cx.dtype))
    return reduce(cx, "mx.prod", factors, x, dim, keepdim, _counted(factors.dtype))


@op("aten.logsumexp.default")
def logsumexp(cx: Context, x: Value, dim: ReducedDims, keepdim: bool = False) -> Value:
    """The logarithm of the sum of exponentials."""
    if x.dtype.is_complex:
        raise cx.refuse("logsumexp of complex values: MLX takes their real parts")
    if 0 in x.shape:  # which MLX rejects
        return filled(cx, -math.inf, cx.shape)
    wide = widened(cast_to(x, cx.dtype))
    return reduce(cx, "mx.logsumexp", wide, x, dim, keepdim, wide.dtype)


# -- extremes ------------------------------------------------------------------------------------


def _extreme(function: str) -> Handler:
    def extreme(cx: Context, x: Value, dim: ReducedDims = None, keepdim: bool = False) -> Value:
        return reduce(cx, function, x, x, dim, keepdim, x.dtype)

    return extreme


_MAX, _MIN = _extreme("mx.max"), _extreme("mx.min")
op("aten.amax.default", "aten.max.default")(_MAX)
op("aten.amin.default", "aten.min.default")(_MIN)


def _place(function: str) -> Handler:
    def place(cx: Context, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
        if dim is None:  # the place among all values in PyTorch's order
            x = x if x.is_logical_in_memory else cx.logical(x)
        if 0 in x.shape:  # which MLX rejects
            return filled(cx, 0, cx.shape)
        return reduce(cx, function, x, x, dim, keepdim, torch.uint32)

    return place


_ARGMAX, _ARGMIN = _place("mx.argmax"), _place("mx.argmin")
op("aten.argmax.default")(_ARGMAX)
op("aten.argmin.default")(_ARGMIN)


def _extreme_and_place(extreme: Handler, place: Handler) -> Handler:
    def both(cx: Context, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
        value = extreme(cx, x, dim, keepdim)
        return value, place(cx.giving(cx.results[1:]), x, dim, keepdim)  # type: ignore[return-value]

    return both


op("aten.max.dim")(_extreme_and_place(_MAX, _ARGMAX))
op("aten.min.dim")(_extreme_and_place(_MIN, _ARGMIN))


# -- truth ---------------------------------------------------------------------------------------


def _truth(function: str) -> Handler:
    def test(cx: Context, x: Value, dim: ReducedDims = None, keepdim: bool = False) -> Value:
        if isinstance(dim, Sequence) and not dim:
            # Over no axes, where sums take none for all.
            return x if x.dtype == torch.bool else emit(cx, "x != 0", torch.bool, x.order, x=x)
        return reduce(cx, function, x, x, dim, keepdim, torch.bool)

    return test


op("aten.any.default", "aten.any.dim", "aten.any.dims")(_truth("mx.any"))
op("aten.all.default", "aten.all.dim", "aten.all.dims", "aten._is_all_true.default")(
    _truth("mx.all")
)


# -- counts --------------------------------------------------------------------------------------


@op("aten.histc.default")
def histc(cx: Context, x: Value, bins: int = 100, low: Number = 0, high: Number = 0) -> Value:
    """How many values fall in each of some bins of equal width."""
    given = {} if low == high else {"low": low, "high": high}
    return cx.function(histogram.histogram, x, bins, order=(0,), **given)


_AT_AN_EDGE = "a value within a rounding of an edge may count in the next bin; NaN counts in none"


@op("aten.histogram.bin_ct", restrictions=_AT_AN_EDGE)
def histogram_of_count(
    cx: Context,
    x: Value,
    bins: int,
    *,
    range: Sequence[float] | None = None,  # torch's name
    weight: Value | None = None,
    density: bool = False,
) -> tuple[Value, ...]:
    """How many values, or what weights, fall in each of some bins of equal width; their edges."""
    ends: dict[str, Any] = {} if range is None else dict(zip(("low", "high"), range, strict=True))
    edges = cx.function_step(histogram.bin_edges, x, x, bins, shape=(bins + 1,), order=(0,), **ends)
    return _binned(cx, x, edges, weight, density), edges


@op("aten.histogram.bins_tensor")
def histogram_of_edges(
    cx: Context, x: Value, edges: Value, *, weight: Value | None = None, density: bool = False
) -> tuple[Value, ...]:
    """How many values, or what weights, fall in each of some bins; their edges."""
    return _binned(cx, x, edges, weight, density), edges


def _binned(cx: Context, x: Value, edges: Value, weight: Value | None, density: bool) -> Value:
    given: dict[str, Any] = {"density": True} if density else {}
    if weight is not None:
        given["weight"] = cx.arrange(weight, x.order)
    bins = (edges.shape[0] - 1,)
    return cx.function_step(histogram.binned, x, x, edges, shape=bins, order=(0,), **given)


# -- running sums and products -------------------------------------------------------------------


def _running(function: str) -> Handler:
    def running(cx: Context, x: Value, dim: int, *, dtype: torch.dtype | None = None) -> Value:
        if x.ndim == 0:
            return in_dtype(cx, x)
        wide = widened(cast_to(x, cx.dtype))
        template = f"{function}(x, axis=axis)"
        return emit(cx, template, wide.dtype, x.order, x=wide, axis=stored_axis(x, dim))

    return running


op("aten.cumsum.default")(_running("mx.cumsum"))
op("aten.cumprod.default")(_running("mx.cumprod"))
op("aten.logcumsumexp.default")(_running("mx.logcumsumexp"))
