"""Rules for Linear, Bilinear and Identity."""

from __future__ import annotations

import mlx.nn as nn
import torch

from mlxport.converter.plan.steps import bilinear_weight
from mlxport.converter.rules.entries import entry_of, unchanged_entries
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, changed, rule


@rule(torch.nn.Linear, ops=["aten.linear.default"], target="mlx.nn.Linear")
def linear(module: torch.nn.Linear) -> LayerSpec:
    """MLX's; weight and bias are unchanged."""
    if module.in_features == 0:
        raise Refusal("in_features is 0, and mlx.nn.Linear divides by it")
    return LayerSpec(
        nn.Linear,
        (module.in_features, module.out_features),
        changed({"bias": True}, bias=module.bias is not None),
        unchanged_entries(module, "weight", "bias"),
        axes=Axes.FEATURES_LAST,
    )


@rule(torch.nn.Bilinear, ops=["aten.bilinear.default"], target="mlx.nn.Bilinear")
def bilinear(module: torch.nn.Bilinear) -> LayerSpec:
    """MLX's; the weight ``(out, in1, in2)`` becomes ``(out, in2, in1)``."""
    return LayerSpec(
        nn.Bilinear,
        (module.in1_features, module.in2_features, module.out_features),
        changed({"bias": True}, bias=module.bias is not None),
        (entry_of("weight", *bilinear_weight()), *unchanged_entries(module, "bias")),
        axes=Axes.FEATURES_LAST,
    )


@rule(torch.nn.Identity, target="mlx.nn.Identity")
def identity(module: torch.nn.Identity) -> LayerSpec:
    """MLX's, in any axis order."""
    return LayerSpec(nn.Identity, axes=Axes.ANY)
