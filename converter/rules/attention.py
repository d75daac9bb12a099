"""Rule for ``torch.nn.MultiheadAttention``."""

from __future__ import annotations

import torch

from mlxport import layers
from mlxport.converter.rules.composite import every_tensor, expecting_usual_parts
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, changed, rule


@rule(
    torch.nn.MultiheadAttention,
    target="layers.MultiheadAttention",
    restrictions="computes what PyTorch does in training, not what its inference fast path does "
    "where all keys are masked",
    leaf=False,
)
def multihead_attention(module: torch.nn.MultiheadAttention) -> LayerSpec:
    """``layers.MultiheadAttention``: MLX's lacks masks, returned weights and appended keys."""
    with expecting_usual_parts():
        args = (module.embed_dim, module.num_heads)
        arguments = changed(
            {"dropout": 0.0, "bias": True, "add_bias_kv": False, "add_zero_attn": False}
            | {"kdim": module.embed_dim, "vdim": module.embed_dim, "batch_first": False},
            dropout=module.dropout,
            bias=module.in_proj_bias is not None,
            add_bias_kv=module.bias_k is not None,
            add_zero_attn=module.add_zero_attn,
            kdim=module.kdim,
            vdim=module.vdim,
            batch_first=module.batch_first,
        )
    if not 0 <= module.dropout <= 1:
        raise Refusal(f"dropout={module.dropout} is not from 0 to 1, so PyTorch cannot train it")
    entries = every_tensor(module, lambda: torch.nn.MultiheadAttention(*args, **arguments))
    return LayerSpec(layers.MultiheadAttention, args, arguments, entries, axes=Axes.LOGICAL)
