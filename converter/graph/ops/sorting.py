"""Handlers of sorting: values in order, and their indices."""

from __future__ import annotations

from mlxport.converter.graph.ir.code import OMIT, expression
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Scalar, Value
from mlxport.converter.graph.ops.axes import stored_axis
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.arrays import sorting


@op("aten.sort.default")
def sort(cx: Context, x: Value, dim: int = -1, descending: bool = False) -> tuple[Value, ...]:
    """Values in order along an axis and their places; equal ones keep their sequence."""
    if x.ndim == 0:
        return of_scalar(cx, x)
    return cx.function_many(
        sorting.sort,
        x,
        orders=[x.order, x.order],
        axis=_axis(x, dim),
        descending=descending or OMIT,
    )


@op("aten.sort.stable")
def sort_stable(
    cx: Context, x: Value, *, stable: bool | None, dim: int = -1, descending: bool = False
) -> tuple[Value, ...]:
    """``sort``, which keeps the sequence of equal values anyway."""
    return sort(cx, x, dim, descending)


@op("aten.argsort.default")
def argsort(cx: Context, x: Value, dim: int = -1, descending: bool = False) -> Value:
    """The places of the values in order along an axis."""
    if x.ndim == 0:
        return cx.emit("mx.zeros_like(x).astype(mx.int64)", x=x)
    return cx.function(
        sorting.argsort,
        x,
        axis=_axis(x, dim),
        descending=descending or OMIT,
        order=x.order,
    )


@op("aten.argsort.stable")
def argsort_stable(
    cx: Context, x: Value, *, stable: bool, dim: int = -1, descending: bool = False
) -> Value:
    """``argsort``, which keeps the sequence of equal values anyway."""
    return argsort(cx, x, dim, descending)


@op("aten.topk.default")
def topk(
    cx: Context,
    x: Value,
    k: int | Scalar,
    dim: int = -1,
    largest: bool = True,
    sorted_: bool = True,
) -> tuple[Value, ...]:
    """The largest or smallest values along an axis, in order, and their places."""
    if x.ndim == 0:
        if k != 1:
            raise cx.refuse(f"the {k} largest of a 0-d array")
        return of_scalar(cx, x)
    return cx.function_many(
        sorting.topk,
        x,
        k,
        orders=[x.order, x.order],
        axis=_axis(x, dim),
        largest=OMIT if largest else False,
    )


def _axis(x: Value, dim: int) -> object:
    axis = stored_axis(x, dim)
    return OMIT if axis in (-1, x.ndim - 1) else axis


def of_scalar(cx: Context, x: Value) -> tuple[Value, Value]:
    """Return the results for a 0-d array: the array itself, and its index, 0."""
    place = expression("mx.zeros_like(x).astype(mx.int64)", {"x": x})
    return x, cx.compute(place, *cx.results[1])
