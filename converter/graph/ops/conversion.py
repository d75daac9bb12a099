"""Handlers of casts, copies and assertions."""

from __future__ import annotations

from typing import Any

import torch

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import emit, mlx_dtype
from mlxport.converter.graph.ir.value import Value, logical_order
from mlxport.converter.graph.ops.registry import op


@op("aten._to_copy.default")
def to_copy(cx: Context, x: Value, **_: Any) -> Value:
    """The values in another dtype; device, layout and memory format have no meaning in MLX."""
    return in_dtype(cx, x)


@op("aten.type_as.default")
def type_as(cx: Context, x: Value, _: Value) -> Value:
    """The values in another one's dtype."""
    return in_dtype(cx, x)


def in_dtype(cx: Context, x: Value) -> Value:
    """Return the values in the node's dtype."""
    if x.dtype == cx.dtype:
        return x
    if x.dtype.is_complex:
        raise cx.refuse("complex values are not supported here")
    return cx.emit("x.astype(dtype)", order=x.order, x=x, dtype=mlx_dtype(cx.dtype))


@op(
    "aten.alias.default",
    "aten.clone.default",
    "aten.detach.default",
    "aten.lift_fresh_copy.default",
)
def alias(cx: Context, x: Value, **_: Any) -> Value:
    """The same values: MLX arrays are immutable, so nothing needs a copy."""
    return x


@op("aten.copy.default")
def copy(cx: Context, target: Value, source: Value, non_blocking: bool = False) -> Value:
    """The source's values, broadcast to the target's shape and in its dtype."""
    if source.shape == cx.shape:
        return in_dtype(cx, source)
    missing = len(cx.shape) - source.ndim
    order = (*range(missing), *(axis + missing for axis in source.order))
    shape = tuple(cx.shape[axis] for axis in order)
    return emit(cx, "mx.broadcast_to(x, shape)", source.dtype, order, x=source, shape=shape)


@op(
    "aten._assert_tensor_metadata.default",
    "aten._assert_async.msg",
    "aten._assert_async.default",
    "aten._assert_scalar.default",
    restrictions="the assertion itself is left out",
)
def assertion(cx: Context, *_: Any, **__: Any) -> None:
    """Nothing: assertions give no value, and those of the capture are satisfied."""


@op("aten.scalar_tensor.default")
def scalar_tensor(cx: Context, number: Any, **_: Any) -> Value:
    """A 0-d array of a number."""
    plain = {torch.bool: bool, torch.int32: int, torch.float32: float}
    if type(number) is plain.get(cx.dtype):
        return cx.emit("mx.array(number)", number=number)
    dtype = mlx_dtype(cx.dtype)
    return cx.emit(
        "mx.array(number, dtype=dtype)", order=logical_order(0), number=number, dtype=dtype
    )
