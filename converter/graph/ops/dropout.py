"""Handler of dropout that is active; in evaluation mode PyTorch leaves no op of it."""

from __future__ import annotations

from mlxport.converter.graph.ir.code import expression
from mlxport.converter.graph.ir.context import Context, Unsupported
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.registry import op


def active(cx: Context, p: float) -> Unsupported:
    """Return the refusal of a dropout that is left on (raise it)."""
    return cx.refuse(
        f"dropout with p={p} is active: its result is random. Pass training=self.training to "
        "torch.nn.functional.dropout, or use torch.nn.Dropout, which eval() turns off"
    )


@op("aten.native_dropout.default", restrictions="p=0 or inference only")
def native_dropout(cx: Context, x: Value, p: float, train: bool | None) -> tuple[Value, Value]:
    """Give the input back and a mask of ones; PyTorch's random stream cannot be reproduced."""
    if train is not False and p > 0:
        raise active(cx, p)
    ones = expression("mx.ones_like(x).astype(mx.bool_)", {"x": x})
    return x, cx.compute(ones, *cx.results[1], x.order)
