"""Special functions: ``layers/arrays/special.py``."""

from __future__ import annotations

import torch

from mlxport.converter.graph.ir.context import Context, Handler
from mlxport.converter.graph.ir.dtypes import cast, emit
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.registry import op


def _special(function: str, arguments: str = "") -> Handler:
    def unary(cx: Context, x: Value) -> Value:
        if x.dtype.is_complex:
            raise cx.refuse(f"{function} of complex values")
        wide = x if x.dtype.is_floating_point else cast(x, torch.float32)
        cx.imports[function] = "arrays.special"
        return emit(cx, f"{function}(x{arguments})", wide.dtype, x.order, x=wide)

    return unary


for _name, _function, _arguments in (
    ("erfc", "erfc", ""),
    ("special_erfcx", "erfcx", ""),
    ("lgamma", "lgamma", ""),
    ("digamma", "digamma", ""),
    ("i0", "bessel_i", ", 0"),
    ("special_i0e", "bessel_i", ", 0, scaled=True"),
    ("special_i1", "bessel_i", ", 1"),
    ("special_i1e", "bessel_i", ", 1, scaled=True"),
    ("special_modified_bessel_i0", "bessel_i", ", 0"),
    ("special_modified_bessel_i1", "bessel_i", ", 1"),
):
    op(f"aten.{_name}.default")(_special(_function, _arguments))


@op("aten.polygamma.default", restrictions="order 0 or 1")
def polygamma(cx: Context, n: int, x: Value) -> Value:
    """The ``n``-th derivative of the digamma function."""
    if n > 1:
        raise cx.refuse(f"the polygamma function of order {n}: MLX has none above 1")
    return _special("trigamma" if n else "digamma")(cx, x)  # type: ignore[return-value]
