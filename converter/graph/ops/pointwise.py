"""Handlers of elementwise arithmetic of several operands, broadcast together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import torch

from mlxport.converter.graph.ir.code import call
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import (
    Number,
    NumericOperand,
    Typed,
    cast_to,
    emit,
    emit_function,
    is_inexact,
    mlx_promoted,
    number,
    to_floating,
)
from mlxport.converter.graph.ir.value import Value, inherit
from mlxport.converter.graph.ops.broadcast import align
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.arrays import arithmetic


def pointwise(
    cx: Context,
    template: str | Callable[..., Any],
    /,
    gives: torch.dtype | None = None,
    **named: Any,
) -> Value:
    """Emit an elementwise expression of broadcast operands in the node's dtype.

    Args:
        cx: the lowering context.
        template: the expression, in which names stand for the operands; or a function of
            ``mlxport.layers`` that takes the operands in turn.
        gives: dtype MLX gives it, if not what it promotes the operands to.
        **named: values and Python numbers.
    """
    aligned, order = align(cx, *named.values())
    operands: list[NumericOperand] = [_operand(cx, x) for x in aligned]
    gives = gives or mlx_promoted(*operands)
    if gives != cx.dtype and not is_inexact(gives) and not is_inexact(cx.dtype):
        # Cast before the operation: a sum of int32 overflows where PyTorch's int64 does not.
        operands = [cast_to(x, cx.dtype) if isinstance(x, Value) else x for x in operands]
        gives = cx.dtype
    if isinstance(template, str):
        result = emit(cx, template, gives, order, **dict(zip(named, operands, strict=True)))
    else:
        result = emit_function(cx, template, gives, order, *operands)
    arrays = [x for x in named.values() if isinstance(x, Value)]
    if len(arrays) == 1:
        return inherit(result, arrays[0], tuple((axis,) for axis in range(result.ndim)))
    return result


def _stays(x: Value | Number, cx: Context, y: Value | Number, neutral: int) -> TypeGuard[Value]:
    """Whether an operation with a number gives the very values of its first operand.

    Not of a number by a number, which decompositions leave behind. Nor of complex numbers:
    PyTorch multiplies by ``1 + 0j``, and infinite parts become NaN.
    """
    if not isinstance(x, Value) or not isinstance(y, (int, float)):
        return False
    return y == neutral and x.dtype == cx.dtype and not cx.dtype.is_complex


def _operand(cx: Context, operand: Any) -> NumericOperand:
    if isinstance(operand, (Value, Typed)):
        return operand
    return number(operand, cx.dtype)


@op("aten.add.Tensor", "aten.add.Scalar")
def add(cx: Context, x: Value, y: Value | Number, alpha: Number = 1) -> Value:
    """``x + alpha * y``."""
    if alpha == 1:
        return pointwise(cx, "x + y", x=x, y=y)
    return pointwise(cx, "x + alpha * y", x=x, alpha=alpha, y=y)


@op("aten.sub.Tensor", "aten.sub.Scalar")
def sub(cx: Context, x: Value | Number, y: Value | Number, alpha: Number = 1) -> Value:
    """``x - alpha * y``."""
    if _stays(x, cx, y, 0):
        return x
    if alpha == 1:
        return pointwise(cx, "x - y", x=x, y=y)
    return pointwise(cx, "x - alpha * y", x=x, alpha=alpha, y=y)


@op("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(cx: Context, x: Value, y: Value | Number, alpha: Number = 1) -> Value:
    """``y - alpha * x``."""
    if alpha == 1:
        return pointwise(cx, "y - x", x=x, y=y)
    return pointwise(cx, "y - alpha * x", x=x, alpha=alpha, y=y)


@op("aten.mul.Tensor", "aten.mul.Scalar")
def mul(cx: Context, x: Value | Number, y: Value | Number) -> Value:
    """``x * y``."""
    if _stays(x, cx, y, 1):
        return x
    return pointwise(cx, "x * y", x=x, y=y)


@op("aten.div.Tensor", "aten.div.Scalar")
def div(cx: Context, x: Value | Number, y: Value | Number) -> Value:
    """``x / y``; integers give float32."""
    if _stays(x, cx, y, 1):
        return x
    return pointwise(cx, "x / y", to_floating(_promoted(cx, x, y)), x=x, y=y)


@op("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def div_mode(cx: Context, x: Value, y: Value | Number, rounding_mode: str | None = None) -> Value:
    """``x / y``, rounded down (``floor``), towards zero (``trunc``) or not at all."""
    if rounding_mode is None:
        return div(cx, x, y)
    if rounding_mode == "floor":
        return floor_divide(cx, x, y)
    if is_inexact(cx.dtype):
        return pointwise(cx, "mx.trunc(x / y)", x=x, y=y)
    return pointwise(cx, arithmetic.truncated_divide, x=x, y=y)


@op("aten.floor_divide.default", "aten.floor_divide.Scalar")
def floor_divide(cx: Context, x: Value | Number, y: Value | Number) -> Value:
    """The largest integer not above ``x / y``, computed exactly as Python's ``//``."""
    if is_inexact(cx.dtype):
        if not isinstance(x, Value):
            dividend = Typed(call("mx.array", float(x)), torch.float32)
            return pointwise(cx, arithmetic.floor_divide, x=dividend, y=y)
        return pointwise(cx, arithmetic.floor_divide, x=x, y=y)
    return pointwise(cx, "x // y", x=x, y=y)


@op("aten.remainder.Tensor", "aten.remainder.Scalar", "aten.remainder.Scalar_Tensor")
def remainder(cx: Context, x: Value | Number, y: Value | Number) -> Value:
    """The remainder with the sign of the divisor, Python's ``%``."""
    return pointwise(cx, "x % y", x=x, y=y)


@op("aten.fmod.Tensor", "aten.fmod.Scalar")
def fmod(cx: Context, x: Value, y: Value | Number) -> Value:
    """The remainder with the sign of the dividend, C's ``fmod``."""
    return pointwise(cx, arithmetic.fmod, x=x, y=y)


def _promoted(cx: Context, *operands: Any) -> torch.dtype:
    return mlx_promoted(*(_operand(cx, x) for x in operands))


@op("aten.pow.Tensor_Scalar")
def pow_scalar(cx: Context, x: Value, exponent: Number) -> Value:
    """``x ** exponent``, the commonest exponents by name."""
    named: dict[Number, str] = {2: "mx.square(x)"}
    if is_inexact(x.dtype):
        named |= {1: "x", 0.5: "mx.sqrt(x)", -0.5: "mx.rsqrt(x)", -1: "mx.reciprocal(x)"}
    if exponent in named and cx.dtype == x.dtype:
        return x if exponent == 1 else emit(cx, named[exponent], x.dtype, x.order, x=x)
    return pointwise(cx, "x ** y", x=x, y=exponent)


@op("aten.pow.Tensor_Tensor", restrictions="not integers to the power of signed integers")
def pow_tensor(cx: Context, x: Value, y: Value) -> Value:
    """``x ** y``."""
    if not is_inexact(cx.dtype) and y.dtype.is_signed:
        raise cx.refuse("MLX differs at integers 1 and -1 to a negative power: cast to float first")
    return pointwise(cx, "x ** y", x=x, y=y)


@op("aten.pow.Scalar")
def pow_of_scalar(cx: Context, base: Number, y: Value) -> Value:
    """``base ** y`` with a Python number as base."""
    if not is_inexact(cx.dtype) and abs(base) == 1:
        raise cx.refuse("MLX differs at integers 1 and -1 to a negative power: cast to float first")
    return pointwise(cx, "x ** y", x=base, y=y)


@op("aten.maximum.default")
def maximum(cx: Context, x: Value, y: Value) -> Value:
    """The larger of two; NaN where either is."""
    return pointwise(cx, "mx.maximum(x, y)", x=x, y=y)


@op("aten.minimum.default")
def minimum(cx: Context, x: Value, y: Value) -> Value:
    """The smaller of two; NaN where either is."""
    return pointwise(cx, "mx.minimum(x, y)", x=x, y=y)


@op("aten.atan2.default")
def atan2(cx: Context, x: Value, y: Value) -> Value:
    """The angle of the point (y, x)."""
    return pointwise(cx, "mx.arctan2(x, y)", to_floating(_promoted(cx, x, y)), x=x, y=y)


@op("aten.logaddexp.default")
def logaddexp(cx: Context, x: Value, y: Value) -> Value:
    """``log(exp(x) + exp(y))``."""
    return pointwise(cx, "mx.logaddexp(x, y)", x=x, y=y)


@op("aten.clamp.default", "aten.clamp.Tensor", "aten.clip.default", "aten.clip.Tensor")
def clamp(
    cx: Context, x: Value, lower: Value | Number | None = None, upper: Value | Number | None = None
) -> Value:
    """Values clipped to two bounds, of which the upper one takes precedence; NaN stays."""
    if upper is None:
        return pointwise(cx, "mx.maximum(x, y)", x=x, y=lower)
    if lower is None:
        return pointwise(cx, "mx.minimum(x, y)", x=x, y=upper)
    return pointwise(cx, "mx.clip(x, lower, upper)", x=x, lower=lower, upper=upper)


@op("aten.clamp_min.default", "aten.clamp_min.Tensor")
def clamp_min(cx: Context, x: Value, lower: Value | Number) -> Value:
    """Values below a bound replaced by it."""
    return clamp(cx, x, lower)


@op("aten.clamp_max.default", "aten.clamp_max.Tensor")
def clamp_max(cx: Context, x: Value, upper: Value | Number) -> Value:
    """Values above a bound replaced by it."""
    return clamp(cx, x, None, upper)


@op("aten.addcmul.default")
def addcmul(cx: Context, x: Value, a: Value, b: Value, value: Number = 1) -> Value:
    """``x + value * a * b``."""
    if value == 1:
        return pointwise(cx, "x + a * b", x=x, a=a, b=b)
    return pointwise(cx, "x + value * (a * b)", x=x, value=value, a=a, b=b)


@op("aten.addcdiv.default")
def addcdiv(cx: Context, x: Value, a: Value, b: Value, value: Number = 1) -> Value:
    """``x + value * a / b``."""
    if value == 1:
        return pointwise(cx, "x + a / b", x=x, a=a, b=b)
    return pointwise(cx, "x + value * (a / b)", x=x, value=value, a=a, b=b)


@op("aten.lerp.Scalar", "aten.lerp.Tensor")
def lerp(cx: Context, x: Value, end: Value, weight: Value | Number) -> Value:
    """``x + weight * (end - x)``."""
    return pointwise(cx, "x + weight * (end - x)", x=x, weight=weight, end=end)
