"""Rules of the linear layers: Linear, Bilinear, Identity."""

from __future__ import annotations

import mlx.nn as nn
import torch

from mlxport.converter.plan.steps import bilinear_weight
from mlxport.converter.rules.entries import kept, one
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, changed, rule


@rule(torch.nn.Linear, ops=["aten.linear.default"], target="mlx.nn.Linear")
def linear(module: torch.nn.Linear) -> LayerSpec:
    """Same weight, same bias."""
    if module.in_features == 0:
        raise Refusal("in_features is 0, and mlx.nn.Linear divides by it")
    return LayerSpec(
        nn.Linear,
        (module.in_features, module.out_features),
        changed({"bias": True}, bias=module.bias is not None),
        kept(module, "weight", "bias"),
        axes=Axes.FEATURES_LAST,
    )


@rule(torch.nn.Bilinear, ops=["aten.bilinear.default"], target="mlx.nn.Bilinear")
def bilinear(module: torch.nn.Bilinear) -> LayerSpec:
    """Weight ``(out, in1, in2)`` to MLX's ``(out, in2, in1)``."""
    return LayerSpec(
        nn.Bilinear,
        (module.in1_features, module.in2_features, module.out_features),
        changed({"bias": True}, bias=module.bias is not None),
        (one("weight", *bilinear_weight()), *kept(module, "bias")),
        axes=Axes.FEATURES_LAST,
    )


@rule(torch.nn.Identity, target="mlx.nn.Identity")
def identity(module: torch.nn.Identity) -> LayerSpec:
    """Nothing to do, in any axis order."""
    return LayerSpec(nn.Identity, axes=Axes.ANY)
