"""Dropout, which does nothing at inference."""

from __future__ import annotations

from mlxport.converter.graph.context import Context
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.value import Value

INFERENCE_ONLY = "inference only"


@op("aten.dropout.default", "aten.feature_dropout.default", restrictions=INFERENCE_ONLY)
@op("aten.alpha_dropout.default", "aten.feature_alpha_dropout.default", restrictions=INFERENCE_ONLY)
def dropout(cx: Context, x: Value, p: float, train: bool) -> Value:
    """Give the input back; at training PyTorch's random stream cannot be reproduced."""
    if train and p > 0:
        raise cx.refuse(
            f"dropout with p={p} at training is random; call model.eval(), or pass training=False "
            "to torch.nn.functional.dropout"
        )
    return x
