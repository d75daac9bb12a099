"""Handlers of special functions: by ``layers/arrays/special.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import cast_to, emit_function
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.arrays import special


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
    "i0": _special(special.bessel_i, 0),
    "special_i0e": _special(special.bessel_i, 0, scaled=True),
    "special_i1": _special(special.bessel_i, 1),
    "special_i1e": _special(special.bessel_i, 1, scaled=True),
    "special_modified_bessel_i0": _special(special.bessel_i, 0),
    "special_modified_bessel_i1": _special(special.bessel_i, 1),
}.items():
    op(f"aten.{_name}.default")(_handler)


@op("aten.polygamma.default", restrictions="order 0 or 1")
def polygamma(cx: Context, n: int, x: Value) -> Value:
    """The ``n``-th derivative of the digamma function."""
    if n > 1:
        raise cx.refuse(f"the polygamma function of order {n}: MLX has none above 1")
    return _special(special.trigamma if n else special.digamma)(cx, x)  # type: ignore[return-value]
