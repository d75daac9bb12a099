"""Handlers of special functions.

Their mathematics is in ``special``, ``incomplete_gamma``, ``bessel`` and ``polynomials``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import Number, cast_to, emit_function, mlx_dtype, typed
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.arithmetic import in_one_dtype
from mlxport.converter.graph.ops.broadcast import align
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.arrays import bessel, incomplete_gamma, polynomials, special


def _special(function: Callable[..., Any], *arguments: int, **settings: bool) -> Handler:
    def unary(cx: Context, x: Value) -> Value:
        if x.dtype.is_complex:
            raise cx.refuse(f"{function.__name__} of complex values")
        wide = x if x.dtype.is_floating_point else cast_to(x, torch.float32)
        return emit_function(cx, function, wide.dtype, x.order, wide, *arguments, **settings)

    return unary


for _name, _handler in {
    "erfc": _special(special.erfc),
    "special_erfcx": _special(special.erfcx),
    "lgamma": _special(special.lgamma),
    "digamma": _special(special.digamma),
    "i0": _special(bessel.bessel_i, 0),
    "special_i0e": _special(bessel.bessel_i, 0, scaled=True),
    "special_i1": _special(bessel.bessel_i, 1),
    "special_i1e": _special(bessel.bessel_i, 1, scaled=True),
    "special_modified_bessel_i0": _special(bessel.bessel_i, 0),
    "special_modified_bessel_i1": _special(bessel.bessel_i, 1),
    "special_modified_bessel_k0": _special(bessel.bessel_k, 0),
    "special_modified_bessel_k1": _special(bessel.bessel_k, 1),
    "special_scaled_modified_bessel_k0": _special(bessel.bessel_k, 0, scaled=True),
    "special_scaled_modified_bessel_k1": _special(bessel.bessel_k, 1, scaled=True),
    "special_bessel_j0": _special(bessel.bessel_j, 0),
    "special_bessel_j1": _special(bessel.bessel_j, 1),
    "special_bessel_y0": _special(bessel.bessel_y, 0),
    "special_bessel_y1": _special(bessel.bessel_y, 1),
    "special_spherical_bessel_j0": _special(bessel.spherical_bessel_j0),
    "special_airy_ai": _special(bessel.airy_ai),
    "special_ndtri": _special(special.ndtri),
}.items():
    op(f"aten.{_name}.default")(_handler)


@op("aten.polygamma.default", restrictions="from order 2, NaN below -16")
def polygamma(cx: Context, n: int, x: Value) -> Value:
    """The ``n``-th derivative of the digamma function."""
    if n > 1:
        return _special(special.polygamma, n)(cx, x)  # type: ignore[return-value]
    return _special(special.trigamma if n else special.digamma)(cx, x)  # type: ignore[return-value]


@op(
    *(f"aten.special_zeta.{overload}" for overload in ("default", "other_scalar", "self_scalar")),
    restrictions="NaN where the second argument is below -16",
)
def zeta(cx: Context, x: Value | Number, q: Value | Number) -> Value:
    """``torch.special.zeta``."""
    aligned, order = align(cx, x, q)
    return emit_function(cx, special.zeta, cx.dtype, order, *(_array(cx, x) for x in aligned))


@op("aten.igamma.default")
def igamma(cx: Context, a: Value, x: Value) -> Value:
    """``torch.special.gammainc``."""
    return in_one_dtype(cx, incomplete_gamma.gammainc, a, x)


@op("aten.igammac.default")
def igammac(cx: Context, a: Value, x: Value) -> Value:
    """``torch.special.gammaincc``."""
    return in_one_dtype(cx, incomplete_gamma.gammaincc, a, x)


def _polynomial(function: Callable[..., Any], *arguments: str, **settings: bool) -> Handler:
    """Return the handler of a polynomial; of a degree that is a number, it is that in the text."""

    def lowered(cx: Context, x: Value | Number, n: Value | Number) -> Value:
        aligned, order = align(cx, x, n)
        given = _array(cx, aligned[0])
        degree = _array(cx, aligned[1]) if isinstance(n, Value) else int(n)
        return emit_function(cx, function, cx.dtype, order, given, degree, *arguments, **settings)

    return lowered


def _array(cx: Context, x: Value | Number) -> Any:
    """Return an operand in the dtype of the result."""
    if isinstance(x, Value):
        return cast_to(x, cx.dtype)
    return typed("mx.array(x, dtype=d)", cx.dtype, x=float(x), d=mlx_dtype(cx.dtype))


for _name, _handler in {
    "hermite_polynomial_h": _polynomial(polynomials.hermite_h),
    "hermite_polynomial_he": _polynomial(polynomials.hermite_he),
    "laguerre_polynomial_l": _polynomial(polynomials.laguerre_l),
    "legendre_polynomial_p": _polynomial(polynomials.legendre_p),
    **{
        f"{name}chebyshev_polynomial_{kind}": _polynomial(polynomials.chebyshev, kind, **shifted)
        for name, shifted in {"": {}, "shifted_": {"shifted": True}}.items()
        for kind in "tuvw"
    },
}.items():
    op(
        *(f"aten.special_{_name}.{kind}" for kind in ("default", "n_scalar", "x_scalar")),
        restrictions="degrees in an array up to 128",
    )(_handler)
