"""Rows of a table by their numbers."""

from __future__ import annotations

from mlxport.converter.graph.context import Context
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.value import Value


@op(
    "aten.embedding.default",
    restrictions="indices must lie in the table: MLX wraps negative ones and reads beyond the "
    "table where PyTorch raises",
)
def embedding(
    cx: Context,
    weight: Value,
    indices: Value,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Value:
    """``torch.nn.functional.embedding``; the other arguments concern its gradient only."""
    order = (*indices.order, indices.ndim)
    return cx.emit("weight[indices]", weight=cx.logical(weight), indices=indices, order=order)
