"""Rules for the normalisation layers of timm (PyTorch Image Models, written against 1.0.22).

They are PyTorch's norms with other signatures and a fast path for half precision. Those whose name
ends in ``2d`` normalise the channels of ``(N, C, H, W)``, where PyTorch's take the last axis.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlxport.converter.rules import normalization
from mlxport.converter.rules.registry import Axes, LayerSpec, library_rule


@library_rule("timm.layers.norm.LayerNorm", target="mlx.nn.LayerNorm, layers.LayerNorm")
def layer_norm(module: Any) -> LayerSpec:
    """As ``torch.nn.LayerNorm``."""
    return normalization.layer_norm(module)


@library_rule("timm.layers.norm.LayerNorm2d", target="mlx.nn.LayerNorm, layers.LayerNorm")
def layer_norm2d(module: Any) -> LayerSpec:
    """LayerNorm over the channels of ``(N, C, H, W)``, which MLX has last."""
    return replace(normalization.layer_norm(module), axes=Axes.CHANNELS_LAST)


@library_rule(
    "timm.layers.norm.GroupNorm", "timm.layers.norm.GroupNorm1", target="layers.GroupNorm"
)
def group_norm(module: Any) -> LayerSpec:
    """As ``torch.nn.GroupNorm``."""
    return normalization.group_norm(module)


@library_rule("timm.layers.norm.RmsNorm", target="mlx.nn.RMSNorm, layers.RMSNorm")
def rms_norm(module: Any) -> LayerSpec:
    """As ``torch.nn.RMSNorm``."""
    return normalization.rms_norm(module)


@library_rule("timm.layers.norm.RmsNorm2d", target="mlx.nn.RMSNorm, layers.RMSNorm")
def rms_norm2d(module: Any) -> LayerSpec:
    """RMSNorm over the channels of ``(N, C, H, W)``, which MLX has last."""
    return replace(normalization.rms_norm(module), axes=Axes.CHANNELS_LAST)
