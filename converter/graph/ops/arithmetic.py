"""Handlers of elementwise arithmetic that MLX lacks: by ``layers/arrays/arithmetic.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import (
    Number,
    cast_to,
    emit,
    emit_function,
    is_inexact,
    number,
)
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.broadcast import align
from mlxport.converter.graph.ops.pointwise import maximum, minimum
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.arrays import arithmetic


def in_one_dtype(cx: Context, function: Callable[..., Any], x: Value, y: Value | Number) -> Value:
    """Emit a function of two operands that are first brought to the node's dtype."""
    aligned, order = align(cx, x, y)
    a, b = (cast_to(v, cx.dtype) if isinstance(v, Value) else number(v, cx.dtype) for v in aligned)
    return emit_function(cx, function, cx.dtype, order, a, b)


def _passing_nan(function: Callable[..., Any], plain: Handler) -> Handler:
    def extreme(cx: Context, x: Value, y: Value) -> Value:
        if not is_inexact(cx.dtype):
            return plain(cx, x, y)  # type: ignore[return-value]
        return in_one_dtype(cx, function, x, y)

    return extreme


op("aten.fmax.default")(_passing_nan(arithmetic.fmax, maximum))
op("aten.fmin.default")(_passing_nan(arithmetic.fmin, minimum))


@op("aten.copysign.Tensor", "aten.copysign.Scalar")
def copysign(cx: Context, x: Value, y: Value | Number) -> Value:
    """The size of one with the sign of another, which may be that of -0."""
    return in_one_dtype(cx, arithmetic.copysign, x, float(y) if isinstance(y, (int, float)) else y)


@op("aten.nextafter.default", restrictions="float32")
def nextafter(cx: Context, x: Value, y: Value) -> Value:
    """The next number on the way to another."""
    if cx.dtype != torch.float32:
        raise cx.refuse(f"nextafter of {cx.dtype}")
    return in_one_dtype(cx, arithmetic.nextafter, x, y)


@op("aten.hypot.default")
def hypot(cx: Context, x: Value, y: Value) -> Value:
    """The hypotenuse of two sides."""
    return in_one_dtype(cx, arithmetic.hypot, x, y)


@op("aten.gcd.default")
def gcd(cx: Context, x: Value, y: Value) -> Value:
    """The greatest common divisor."""
    return in_one_dtype(cx, arithmetic.greatest_common_divisor, x, y)


@op("aten.lcm.default")
def lcm(cx: Context, x: Value, y: Value) -> Value:
    """The least common multiple."""
    return in_one_dtype(cx, arithmetic.least_common_multiple, x, y)


@op("aten.ldexp.Tensor", restrictions="powers that float32 holds")
def ldexp(cx: Context, x: Value, exponent: Value) -> Value:
    """``x * 2**exponent``."""
    (x, exponent), order = align(cx, x, exponent)
    wide = torch.promote_types(cx.dtype, torch.float32)
    a, b = cast_to(x, wide), cast_to(exponent, wide)
    return emit(cx, "x * 2.0**y", wide, order, x=a, y=b)


@op("aten.signbit.default")
def signbit(cx: Context, x: Value) -> Value:
    """Whether the sign is negative, that of -0 too."""
    if x.dtype in (torch.bool, torch.uint8):
        return emit(cx, "mx.zeros_like(x).astype(mx.bool_)", torch.bool, x.order, x=x)
    return cx.function(arithmetic.signbit, x, order=x.order)


@op("aten.round.decimals")
def round_decimals(cx: Context, x: Value, *, decimals: int = 0) -> Value:
    """Rounded to some decimals, as PyTorch does: multiplied by a power of ten, rounded, divided."""
    if not is_inexact(x.dtype):
        raise cx.refuse(f"integers rounded to {decimals} decimals")
    if decimals == 0:
        return emit(cx, "mx.round(x)", x.dtype, x.order, x=x)
    wide = cast_to(x, torch.float32)
    template = "mx.round(x * n) / n" if decimals > 0 else "mx.round(x / n) * n"
    return emit(cx, template, torch.float32, x.order, x=wide, n=10.0 ** abs(decimals))


@op("aten.frexp.Tensor")
def frexp(cx: Context, x: Value) -> tuple[Value, ...]:
    """``torch.frexp``: mantissas and exponents."""
    return cx.function_many(arithmetic.frexp, x, orders=[x.order, x.order])
