"""Handlers of scatters: elements reduced with others at given places, or put in by a mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlxport.converter.graph.ir.code import OMIT, call
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.axes import stored_axis
from mlxport.converter.graph.ops.broadcast import common_order
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.ops.view import by_vectors
from mlxport.layers.arrays import indexing, scattering

IN_RANGE = "places must lie in the array: MLX does not check them"


def _reduced(
    cx: Context,
    function: Callable[..., Any],
    x: Value,
    dim: int,
    places: Value,
    source: Value,
    **settings: Any,
) -> Value:
    """Emit a function of ``layers/arrays/scattering.py``."""
    if 0 in (*x.shape, *places.shape):
        return x
    if 0 in (x.ndim, places.ndim, source.ndim):
        return by_vectors(cx, _reduced, function, x, dim, places, source, **settings)
    if x.dtype.is_complex:
        raise cx.refuse("a scatter of complex values")
    if places.ndim == x.ndim and function is scattering.scatter_reduce:
        (x, places, source), order = common_order(cx, [x, places, source])
    else:
        (x, source), order = common_order(cx, [x, source])
    axis = stored_axis(x, dim)
    settings = {**settings, "axis": x.ndim - 1 if axis == -1 else axis}
    return cx.function(function, x, places, source, order=order, **settings)


@op("aten.scatter_reduce.two", restrictions=IN_RANGE)
def scatter_reduce(
    cx: Context,
    x: Value,
    dim: int,
    places: Value,
    source: Value,
    reduce: str,
    *,
    include_self: bool = True,
) -> Value:
    """The array with elements along an axis reduced with those put in."""
    own = OMIT if include_self else False
    return _reduced(
        cx, scattering.scatter_reduce, x, dim, places, source, reduce=reduce, include_self=own
    )


@op("aten.index_reduce.default", restrictions=IN_RANGE)
def index_reduce(
    cx: Context,
    x: Value,
    dim: int,
    places: Value,
    source: Value,
    reduce: str,
    *,
    include_self: bool = True,
) -> Value:
    """The array with slices of an axis reduced with those put in."""
    own = OMIT if include_self else False
    return _reduced(
        cx, scattering.index_reduce, x, dim, places, source, reduce=reduce, include_self=own
    )


@op("aten.scatter.reduce", restrictions=IN_RANGE)
def scatter_with_reduce(
    cx: Context, x: Value, dim: int, places: Value, source: Value, *, reduce: str
) -> Value:
    """The array with elements along an axis added to or multiplied."""
    name = {"add": "sum", "multiply": "prod"}[reduce]
    return scatter_reduce(cx, x, dim, places, source, name)


@op("aten.masked_scatter.default", restrictions="the source must have an element for each place")
def masked_scatter(cx: Context, x: Value, mask: Value, source: Value) -> Value:
    """The array with the elements where a mask is true replaced one by one."""
    x, mask, source = cx.logical(x), cx.logical(mask), cx.logical(source)
    x, mask = _broadcast(cx, x), _broadcast(cx, mask)
    return cx.function(scattering.masked_scatter, x, mask, source)


@op("aten.diagonal_scatter.default")
def diagonal_scatter(
    cx: Context, x: Value, source: Value, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Value:
    """The array with a diagonal of two axes replaced."""
    x, source = cx.logical(x), cx.logical(source)
    settings: dict[str, Any] = {
        "offset": offset or OMIT,
        "axis1": dim1 % x.ndim,
        "axis2": dim2 % x.ndim,
    }
    return cx.function(indexing.diagonal_scatter, x, source, **settings)


@op("aten.put.default", restrictions=IN_RANGE)
def put(cx: Context, x: Value, places: Value, source: Value, accumulate: bool = False) -> Value:
    """The array with elements of the flattened one replaced or added to."""
    values = cx.logical(x), cx.logical(places), cx.logical(source)
    given = accumulate or OMIT
    return cx.function(scattering.put, *values, accumulate=given)


def _broadcast(cx: Context, x: Value) -> Value:
    if x.shape == cx.shape:
        return x
    return cx.compute(call("mx.broadcast_to", x, cx.shape), cx.shape, x.dtype)
