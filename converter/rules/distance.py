"""Rules for CosineSimilarity and PairwiseDistance."""

from __future__ import annotations

import torch

from mlxport import layers
from mlxport.converter.rules.registry import Axes, LayerSpec, changed, rule


@rule(
    torch.nn.CosineSimilarity,
    ops=["aten.cosine_similarity.default"],
    target="layers.CosineSimilarity",
    leaf=False,
)
def cosine_similarity(module: torch.nn.CosineSimilarity) -> LayerSpec:
    """``layers.CosineSimilarity``: MLX has only a loss of that name, with another eps."""
    arguments = changed({"axis": 1, "eps": 1e-8}, axis=module.dim, eps=module.eps)
    return LayerSpec(layers.CosineSimilarity, (), arguments, axes=Axes.LOGICAL)


@rule(
    torch.nn.PairwiseDistance,
    ops=["aten.pairwise_distance.default"],
    target="layers.PairwiseDistance",
    leaf=False,
)
def pairwise_distance(module: torch.nn.PairwiseDistance) -> LayerSpec:
    """``layers.PairwiseDistance``: MLX has none."""
    arguments = changed(
        {"p": 2.0, "eps": 1e-6, "keepdims": False},
        p=module.norm,
        eps=module.eps,
        keepdims=module.keepdim,
    )
    return LayerSpec(layers.PairwiseDistance, (), arguments, axes=Axes.LOGICAL)
