"""Handlers of embeddings: rows of a table by their indices, and bags of rows reduced."""

from __future__ import annotations

from mlxport.converter.graph.ir.code import OMIT
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.arguments import unread
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.embedding import bag


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
    """``torch.nn.functional.embedding``; the other arguments concern the gradient only."""
    order = (*indices.order, indices.ndim)
    return cx.emit("weight[indices]", weight=cx.logical(weight), indices=indices, order=order)


_BAG_MODES = ("sum", "mean", "max")


@op(
    "aten._embedding_bag.default",
    "aten._embedding_bag_forward_only.default",
    restrictions="indices must lie in the table and bags begin at 0; the reduced rows only",
)
def embedding_bag(
    cx: Context,
    weight: Value,
    indices: Value,
    offsets: Value,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Value | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Value, ...]:
    """``torch.nn.functional.embedding_bag``."""
    rows = cx.function_step(
        bag.embedding_bag,
        weight,
        cx.logical(weight),
        cx.logical(indices),
        offsets,
        shape=cx.shape,
        mode=OMIT if _BAG_MODES[mode] == "mean" else _BAG_MODES[mode],
        per_sample_weights=OMIT if per_sample_weights is None else per_sample_weights,
        include_last_offset=include_last_offset or OMIT,
        padding_idx=OMIT if padding_idx < 0 else padding_idx,
    )
    return rows, *unread(cx, 1, doing="embedding_bag")
