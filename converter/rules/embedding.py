"""Rule of the embedding table."""

from __future__ import annotations

import mlx.nn as nn
import torch

from mlxport.converter.rules.entries import kept
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, rule


@rule(
    torch.nn.Embedding,
    ops=["aten.embedding.default"],
    target="mlx.nn.Embedding",
    restrictions="max_norm is refused; padding_idx receives gradients; indices are not checked",
)
def embedding(module: torch.nn.Embedding) -> LayerSpec:
    """Same table."""
    if module.max_norm is not None:
        raise Refusal(
            f"max_norm={module.max_norm} rewrites the table in every forward pass; renormalise it "
            "once and set max_norm to None"
        )
    return LayerSpec(
        nn.Embedding,
        (module.num_embeddings, module.embedding_dim),
        entries=kept(module, "weight"),
        axes=Axes.LOGICAL,
    )
