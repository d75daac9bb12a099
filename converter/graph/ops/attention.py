"""Handlers of scaled dot-product attention."""

from __future__ import annotations

from mlxport.converter.graph.ir.code import OMIT, expression
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.nodes import ATTENDED
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.arguments import FLOATING_ONLY, require_floating
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.ops.repetition import unrepeated
from mlxport.layers.attention import dot_product, scores


@op(
    "aten.scaled_dot_product_attention.default",
    restrictions=f"without dropout; {FLOATING_ONLY}",
)
def scaled_dot_product_attention(
    cx: Context,
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """MLX's fused attention where it does what PyTorch's does, else ``layers/attention``'s."""
    if dropout_p > 0:
        raise cx.refuse(
            f"attention with dropout_p={dropout_p} is random; pass dropout_p=0.0 at inference"
        )
    require_floating(cx, "attention", q, k, v)
    k, v, enable_gqa = _grouped(cx, q, k, v, enable_gqa)
    q, k, v = cx.logical(q), cx.logical(k), cx.logical(v)
    is_square = q.shape[-2] == k.shape[-2]  # else the two align the causal mask differently
    native = _is_native(q, k, v, enable_gqa)
    if attn_mask is not None and native and _leaves_a_key(cx, attn_mask):
        return cx.call(
            "mx.fast.scaled_dot_product_attention",
            q,
            k,
            v,
            scale=expression("n**-0.5", {"n": q.shape[-1]}) if scale is None else scale,
            mask=cx.logical(attn_mask),
        )
    if attn_mask is None and native and (is_square or not is_causal):
        return cx.call(
            "mx.fast.scaled_dot_product_attention",
            q,
            k,
            v,
            scale=expression("n**-0.5", {"n": q.shape[-1]}) if scale is None else scale,
            mask="causal" if is_causal else OMIT,
        )
    return cx.function(
        dot_product.scaled_dot_product_attention,
        q,
        k,
        v,
        mask=OMIT if attn_mask is None else cx.logical(attn_mask),
        is_causal=is_causal or OMIT,
        scale=OMIT if scale is None else scale,
        enable_gqa=enable_gqa or OMIT,
    )


@op(
    "aten._scaled_dot_product_flash_attention_for_cpu.default",
    restrictions=f"without dropout; {FLOATING_ONLY}",
)
def flash_attention_for_cpu(
    cx: Context,
    q: Value,
    k: Value,
    v: Value,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Value | None = None,
    scale: float | None = None,
) -> tuple[Value, Value]:
    """The attention, and the log-sum-exp of its scores: torch.export decomposes to the weights."""
    attended = scaled_dot_product_attention(
        cx,
        q,
        k,
        v,
        attn_mask,
        dropout_p,
        is_causal,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    totals = cx.calling(
        scores.scores_logsumexp,
        cx.logical(q),
        cx.logical(k),
        mask=OMIT if attn_mask is None else cx.logical(attn_mask),
        is_causal=is_causal or OMIT,
        scale=OMIT if scale is None else scale,
    )
    return attended, cx.compute(totals, *cx.results[1])


def _grouped(
    cx: Context, q: Value, k: Value, v: Value, enable_gqa: bool
) -> tuple[Value, Value, bool]:
    """Return keys and values without their repetition to the heads of the queries.

    Returns:
        ``k``, ``v`` and whether their heads are each for a group of queries.
    """
    heads = q.ndim - 3
    if enable_gqa or heads < 0 or not q.ndim == k.ndim == v.ndim or 0 in k.shape:
        return k, v, enable_gqa
    keys, count = unrepeated(cx, k, heads)
    values, of_values = unrepeated(cx, v, heads)
    if count == 1 or count != of_values or q.shape[heads] != k.shape[heads]:
        return k, v, enable_gqa
    return keys, values, True


def _leaves_a_key(cx: Context, mask: Value) -> bool:
    """Whether a mask is known to mask no query whole, so that MLX gives what PyTorch does."""
    node = cx.node.fx
    return node is not None and ATTENDED in node.meta and 2 <= mask.ndim <= 4


def _is_native(q: Value, k: Value, v: Value, enable_gqa: bool) -> bool:
    """Whether the shapes are those MLX takes, which broadcasts no axis."""
    if {q.ndim, k.ndim, v.ndim} != {4}:
        return False
    same_batch = q.shape[0] == k.shape[0] == v.shape[0]
    same_heads = enable_gqa or q.shape[1] == k.shape[1] == v.shape[1]
    return same_batch and same_heads and 0 not in (*q.shape, *k.shape, *v.shape)
