"""Handlers of elementwise functions of one array, which keep its axis order."""

from __future__ import annotations

import torch

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import emit, is_inexact, to_floating
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.registry import op

# Integers give float32 on both sides.
_FLOATING = {
    "acos": "mx.arccos(x)",
    "acosh": "mx.arccosh(x)",
    "asin": "mx.arcsin(x)",
    "asinh": "mx.arcsinh(x)",
    "atan": "mx.arctan(x)",
    "atanh": "mx.arctanh(x)",
    "cos": "mx.cos(x)",
    "cosh": "mx.cosh(x)",
    "erf": "mx.erf(x)",
    "erfinv": "mx.erfinv(x)",
    "exp": "mx.exp(x)",
    "exp2": "2.0**x",
    "expm1": "mx.expm1(x)",
    "log": "mx.log(x)",
    "log10": "mx.log10(x)",
    "log1p": "mx.log1p(x)",
    "log2": "mx.log2(x)",
    "reciprocal": "mx.reciprocal(x)",
    "rsqrt": "mx.rsqrt(x)",
    "sigmoid": "mx.sigmoid(x)",
    "sin": "mx.sin(x)",
    "sinh": "mx.sinh(x)",
    "sqrt": "mx.sqrt(x)",
    "tan": "mx.tan(x)",
    "tanh": "mx.tanh(x)",
}

# Of complex values, PyTorch alone computes these.
_REAL_ONLY = ("mx.expm1(x)", "mx.sigmoid(x)")

# Of complex values, MLX computes these on the CPU alone.
_CPU_ONLY = ("mx.arccosh(x)", "mx.arcsinh(x)", "mx.arctanh(x)")

# The result has the operand's dtype.
_KEEPING = {
    "abs": "mx.abs(x)",
    "neg": "-x",
    "sign": "mx.sign(x)",
    "sgn": "mx.sign(x)",
    "square": "mx.square(x)",
}

# Integers are left as they are.
_ROUNDING = {
    "ceil": "mx.ceil(x)",
    "floor": "mx.floor(x)",
    "round": "mx.round(x)",
    "trunc": "mx.trunc(x)",
}

_TESTING = {
    "isfinite": "mx.isfinite(x)",
    "isinf": "mx.isinf(x)",
    "isnan": "mx.isnan(x)",
    "isneginf": "mx.isneginf(x)",
    "isposinf": "mx.isposinf(x)",
}


def _floating(template: str) -> Handler:
    def unary(cx: Context, x: Value) -> Value:
        if x.dtype.is_complex and template in _REAL_ONLY:
            raise cx.refuse(f"MLX computes no {template} of complex values")
        on_cpu = x.dtype.is_complex and template in _CPU_ONLY
        code = template.replace("(x)", "(x, stream=mx.cpu)") if on_cpu else template
        return emit(cx, code, to_floating(x.dtype), x.order, x=x)

    return unary


def _keeping(template: str) -> Handler:
    def unary(cx: Context, x: Value) -> Value:
        gives = cx.dtype if x.dtype.is_complex else x.dtype  # the size of a complex number is real
        return emit(cx, template, gives, x.order, x=x)

    return unary


def _rounding(template: str) -> Handler:
    def unary(cx: Context, x: Value) -> Value:
        return emit(cx, template, x.dtype, x.order, x=x) if is_inexact(x.dtype) else x

    return unary


def _testing(template: str) -> Handler:
    def unary(cx: Context, x: Value) -> Value:
        return emit(cx, template, torch.bool, x.order, x=x)

    return unary


for _table, _make in (
    (_FLOATING, _floating),
    (_KEEPING, _keeping),
    (_ROUNDING, _rounding),
    (_TESTING, _testing),
):
    for _name, _template in _table.items():
        op(f"aten.{_name}.default")(_make(_template))


@op("aten.nan_to_num.default")
def nan_to_num(
    cx: Context,
    x: Value,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Value:
    """NaN and the infinities replaced by numbers: 0 and the dtype's extremes by default."""
    if not is_inexact(x.dtype):
        return x
    given = {"nan": nan, "posinf": posinf, "neginf": neginf}
    used = {name: float(v) for name, v in given.items() if v is not None}
    arguments = "".join(f", {name}={name}" for name in used)
    return emit(cx, f"mx.nan_to_num(x{arguments})", x.dtype, x.order, x=x, **used)
