"""Handlers of ops that create arrays from numbers: fills, ranges, the identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mlxport.converter.graph.ir.code import OMIT, call
from mlxport.converter.graph.ir.constant_source import filled_array
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import Number, literal, mlx_dtype
from mlxport.converter.graph.ir.value import Order, Scalar, Value
from mlxport.converter.graph.ops.registry import op


def filled(cx: Context, value: Number | Scalar, size: Sequence[Any]) -> Value:
    """Emit an array of one number of a logical shape, stored as its consumers want it."""
    return cx.in_any_order(lambda order: _filled(cx, value, [size[axis] for axis in order], order))


def _filled(cx: Context, value: Number | Scalar, shape: Sequence[Any], order: Order) -> Value:
    """Emit an array of one number, ``shape`` as stored, in the node's dtype."""
    if isinstance(value, Scalar):
        dtype = mlx_dtype(cx.dtype)
        return cx.call("mx.full", tuple(shape), value, dtype=dtype, order=order)
    code = filled_array(literal(value, cx.dtype), tuple(shape), cx.dtype)
    return cx.compute(code, *cx.results[0], order)


@op("aten.full.default")
def full(cx: Context, size: Any, value: Number | Scalar, **_: Any) -> Value:
    """One number everywhere."""
    return filled(cx, value, size)


@op("aten.zeros.default")
def zeros(cx: Context, size: Any, **_: Any) -> Value:
    """Zeros."""
    return filled(cx, 0, size)


@op("aten.ones.default")
def ones(cx: Context, size: Any, **_: Any) -> Value:
    """Ones."""
    return filled(cx, 1, size)


@op("aten.empty.memory_format", "aten.empty_permuted.default")
def empty(cx: Context, size: Any, *_: Any, **__: Any) -> Value:
    """Zeros: what PyTorch leaves undefined has to be defined to be the same every time."""
    return filled(cx, 0, size)


@op("aten.new_full.default")
def new_full(cx: Context, x: Value, size: Any, value: Number | Scalar, **_: Any) -> Value:
    """One number everywhere, in the dtype of another array."""
    return filled(cx, value, size)


@op("aten.new_zeros.default", "aten.new_empty.default")
def new_zeros(cx: Context, x: Value, size: Any, **_: Any) -> Value:
    """Zeros in the dtype of another array."""
    return filled(cx, 0, size)


@op("aten.new_ones.default")
def new_ones(cx: Context, x: Value, size: Any, **_: Any) -> Value:
    """Ones in the dtype of another array."""
    return filled(cx, 1, size)


@op("aten.full_like.default")
def full_like(cx: Context, x: Value, value: Number | Scalar, **_: Any) -> Value:
    """One number everywhere, in the shape of another array."""
    if isinstance(value, Scalar) or value not in (0, 1):
        return _filled(cx, value, x.stored_shape, x.order)
    function = "mx.ones_like" if value else "mx.zeros_like"
    if cx.dtype == x.dtype:
        return cx.call(function, x, order=x.order)
    return cx.emit(f"{function}(x).astype(dtype)", order=x.order, x=x, dtype=mlx_dtype(cx.dtype))


@op("aten.fill.Scalar")
def fill(cx: Context, x: Value, value: Number) -> Value:
    """One number everywhere, in the shape of another array."""
    return full_like(cx, x, value)


@op("aten.zeros_like.default", "aten.empty_like.default")
def zeros_like(cx: Context, x: Value, **_: Any) -> Value:
    """Zeros in the shape of another array."""
    return full_like(cx, x, 0)


@op("aten.ones_like.default")
def ones_like(cx: Context, x: Value, **_: Any) -> Value:
    """Ones in the shape of another array."""
    return full_like(cx, x, 1)


@op("aten.arange.default")
def arange(cx: Context, end: Number | Scalar, **_: Any) -> Value:
    """``0, 1, …`` up to but without ``end``."""
    return _arange(cx, 0, end, 1)


@op("aten.arange.start")
def arange_start(cx: Context, start: Number, end: Number | Scalar, **_: Any) -> Value:
    """``start, start + 1, …`` up to but without ``end``."""
    return _arange(cx, start, end, 1)


@op("aten.arange.start_step")
def arange_step(
    cx: Context, start: Number, end: Number | Scalar, step: Number = 1, **_: Any
) -> Value:
    """``start, start + step, …`` up to but without ``end``."""
    return _arange(cx, start, end, step)


def _arange(cx: Context, start: Number, end: Number | Scalar, step: Number) -> Value:
    dtype = mlx_dtype(cx.dtype)
    numbers = [n for n in (start, end, step) if not isinstance(n, Scalar)]
    natural = torch.float32 if any(isinstance(n, float) for n in numbers) else torch.int32
    arguments: list[Any] = [end] if start == 0 and step == 1 else [start, end]
    if step != 1:
        arguments.append(step)
    return cx.call("mx.arange", *arguments, dtype=OMIT if cx.dtype == natural else dtype)


@op("aten.linspace.default")
def linspace(cx: Context, start: Number, end: Number, steps: int | Scalar, **_: Any) -> Value:
    """Evenly spaced numbers from ``start`` to ``end``, both included."""
    if not cx.dtype.is_floating_point:
        raise cx.refuse(f"evenly spaced numbers of {cx.dtype}: make them floating")
    mlx = mlx_dtype(cx.dtype)
    dtype = OMIT if cx.dtype == torch.float32 else mlx
    return cx.call("mx.linspace", start, end, steps, dtype=dtype)


@op("aten.eye.default", "aten.eye.m")
def eye(cx: Context, n: int | Scalar, m: int | Scalar | None = None, **_: Any) -> Value:
    """Ones on the diagonal, zeros elsewhere."""
    dtype = mlx_dtype(cx.dtype)
    shape = (n,) if m is None or m == n else (n, m)
    if cx.dtype.itemsize == 8:  # MLX scatters the ones, which not every device can in that dtype
        return cx.emit("identity.astype(dtype)", identity=call("mx.eye", *shape), dtype=dtype)
    return cx.call("mx.eye", *shape, dtype=OMIT if cx.dtype == torch.float32 else dtype)
