"""Handlers of comparisons, logic, bits and ``where``."""

from __future__ import annotations

from typing import Any

import torch

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import (
    Number,
    cast_to,
    emit,
    is_inexact,
    literal,
    require_fitting,
    torch_promoted,
)
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.broadcast import align
from mlxport.converter.graph.ops.pointwise import pointwise
from mlxport.converter.graph.ops.registry import op

_COMPARISONS = {
    "eq": "x == y",
    "ne": "x != y",
    "lt": "x < y",
    "le": "x <= y",
    "gt": "x > y",
    "ge": "x >= y",
}


def _comparison(template: str) -> Handler:
    def compare(cx: Context, x: Value, y: Value | Number) -> Value:
        dtype = torch_promoted(x, y)
        aligned, order = align(cx, x, y)
        a, b = (_compared(operand, dtype) for operand in aligned)
        return emit(cx, template, torch.bool, order, x=a, y=b)

    return compare


def _compared(operand: Any, dtype: torch.dtype) -> Any:
    """Return an operand as PyTorch compares it: a 0-d array takes the other's dtype first."""
    if isinstance(operand, Value):
        return cast_to(operand, dtype) if operand.ndim == 0 else operand
    if not is_inexact(dtype) and isinstance(operand, int) and dtype != torch.bool:
        require_fitting(operand, dtype)
    return operand


for _name, _template in _COMPARISONS.items():
    op(f"aten.{_name}.Tensor", f"aten.{_name}.Scalar")(_comparison(_template))


def _logic(function: str, symbol: str) -> Handler:
    def combine(cx: Context, x: Value, y: Value) -> Value:
        plain = symbol and x.dtype == y.dtype == torch.bool
        template = f"x {symbol} y" if plain else f"{function}(x, y)"
        return pointwise(cx, template, torch.bool, x=x, y=y)

    return combine


op("aten.logical_and.default")(_logic("mx.logical_and", "&"))
op("aten.logical_or.default")(_logic("mx.logical_or", "|"))
op("aten.logical_xor.default")(_logic("mx.logical_xor", "^"))


@op("aten.logical_not.default")
def logical_not(cx: Context, x: Value) -> Value:
    """True where a value is zero."""
    template = "~x" if x.dtype == torch.bool else "mx.logical_not(x)"
    return emit(cx, template, torch.bool, x.order, x=x)


@op("aten.bitwise_not.default")
def bitwise_not(cx: Context, x: Value) -> Value:
    """All bits inverted."""
    return emit(cx, "~x", x.dtype, x.order, x=x)


def _bits(template: str) -> Handler:
    def combine(cx: Context, x: Value | Number, y: Value | Number) -> Value:
        return pointwise(cx, template, x=x, y=y)

    return combine


for _names, _template in {
    ("bitwise_and.Tensor", "bitwise_and.Scalar"): "x & y",
    ("bitwise_or.Tensor", "bitwise_or.Scalar"): "x | y",
    ("bitwise_xor.Tensor", "bitwise_xor.Scalar"): "x ^ y",
    ("bitwise_left_shift.Tensor", "__lshift__.Tensor", "__lshift__.Scalar"): "x << y",
    ("bitwise_right_shift.Tensor", "__rshift__.Tensor", "__rshift__.Scalar"): "x >> y",
}.items():
    op(*(f"aten.{_name}" for _name in _names))(_bits(_template))


@op("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where(cx: Context, condition: Value, x: Value | Number, y: Value | Number) -> Value:
    """``x`` where the condition is true, ``y`` elsewhere."""
    x, y = (v if isinstance(v, Value) else literal(v, cx.dtype) for v in (x, y))
    return emit_where(cx, condition, x, y)


@op("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(cx: Context, x: Value, mask: Value, value: Value | Number) -> Value:
    """``value`` where the mask is true, ``x`` elsewhere."""
    filled = value if isinstance(value, Value) else literal(value, cx.dtype)
    return emit_where(cx, mask, filled, x)


def emit_where(cx: Context, condition: Value, x: Value | Number, y: Value | Number) -> Value:
    """Emit ``mx.where`` in the node's dtype."""
    aligned, order = align(cx, condition, x, y)
    chosen = [cast_to(v, cx.dtype) if isinstance(v, Value) else v for v in aligned[1:]]
    gives = cx.dtype
    if not any(isinstance(v, Value) for v in aligned[1:]) and gives != torch.bool:
        gives = torch.float32 if is_inexact(gives) else torch.int32  # two Python numbers
    template = "mx.where(condition, x, y)"
    return emit(cx, template, gives, order, condition=aligned[0], x=chosen[0], y=chosen[1])
