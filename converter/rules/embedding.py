"""Rules for Embedding and EmbeddingBag."""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.nn as nn
import torch

from mlxport import layers
from mlxport.converter.rules.entries import unchanged_entries
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, changed, rule
from mlxport.layers.embedding.bag import BAG_MODES

_INDICES = "indices are not checked"
_GRADIENTS = "gradients are not scaled by frequency"
_MAX_NORM = "max_norm shortens rows on their way out and leaves the table as it is"


@rule(
    torch.nn.Embedding,
    ops=["aten.embedding.default"],
    side_effect_ops=[
        "aten.contiguous.default",
        "aten.detach.default",
        "aten.embedding_renorm_.default",  # max_norm
    ],
    target="mlx.nn.Embedding, layers.Embedding",
    restrictions=(
        f"in whole models padding_idx receives gradients; {_GRADIENTS}; {_INDICES}; {_MAX_NORM}"
    ),
)
def embedding(module: torch.nn.Embedding) -> LayerSpec:
    """MLX's, or ``layers.Embedding`` with ``max_norm``; standalone also with ``padding_idx``."""
    native, padding = module.max_norm is None, module.padding_idx
    return LayerSpec(
        nn.Embedding if native else layers.Embedding,
        (module.num_embeddings, module.embedding_dim),
        {} if native else _bounds(module),
        entries=unchanged_entries(module, "weight"),
        axes=Axes.LOGICAL,
        standalone=None if padding is None else partial(layers.Embedding, padding_idx=padding),
    )


def _bounds(module: torch.nn.Embedding) -> dict[str, Any]:
    return changed(
        {"max_norm": None, "norm_type": 2.0}, max_norm=module.max_norm, norm_type=module.norm_type
    )


@rule(
    torch.nn.EmbeddingBag,
    target="layers.EmbeddingBag",
    restrictions=f"no nested tensors; {_GRADIENTS}; {_INDICES}; {_MAX_NORM}",
    leaf=False,
)
def embedding_bag(module: torch.nn.EmbeddingBag) -> LayerSpec:
    """``layers.EmbeddingBag``: MLX has none."""
    if module.mode not in BAG_MODES:
        raise Refusal(f"mode={module.mode!r} is not one of {BAG_MODES}")
    arguments = changed(
        {
            "mode": "mean",
            "include_last_offset": False,
            "padding_idx": None,
            "max_norm": None,
            "norm_type": 2.0,
        },
        mode=module.mode,
        include_last_offset=module.include_last_offset,
        padding_idx=module.padding_idx,
        max_norm=module.max_norm,
        norm_type=module.norm_type,
    )
    return LayerSpec(
        layers.EmbeddingBag,
        (module.num_embeddings, module.embedding_dim),
        arguments,
        entries=unchanged_entries(module, "weight"),
        axes=Axes.LOGICAL,
    )
