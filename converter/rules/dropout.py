"""Rules for dropout layers. In evaluation all of them return their input."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn
import torch

from mlxport import layers
from mlxport.converter.rules.registry import Axes, LayerSpec, rule


@rule(
    torch.nn.Dropout,
    ops=["aten.dropout.default", "aten.dropout_.default"],
    target="mlx.nn.Dropout, layers.Dropout",
)
def dropout(module: torch.nn.Dropout) -> LayerSpec:
    """MLX's, or ``layers.Dropout`` for ``p=1``, which MLX's refuses."""
    target = layers.Dropout if module.p == 1 else nn.Dropout
    return LayerSpec(target, _probability(module), axes=Axes.ANY)


@rule(
    torch.nn.Dropout1d,
    ops=["aten.feature_dropout.default", "aten.feature_dropout_.default"],
    target="layers.Dropout1d",
)
def dropout1d(module: torch.nn.Dropout1d) -> LayerSpec:
    """``layers.Dropout1d``: MLX has none."""
    return LayerSpec(layers.Dropout1d, _probability(module), rank=1)


@rule(
    torch.nn.Dropout2d,
    ops=["aten.feature_dropout.default", "aten.feature_dropout_.default"],
    target="mlx.nn.Dropout2d, layers.Dropout2d",
    restrictions="in whole models, when they train, input with two spatial axes",
)
@rule(
    torch.nn.Dropout3d,
    ops=["aten.feature_dropout.default", "aten.feature_dropout_.default"],
    target="mlx.nn.Dropout3d, layers.Dropout3d",
)
def channel_dropout(module: torch.nn.Dropout2d | torch.nn.Dropout3d) -> LayerSpec:
    """MLX's, or ours for ``p=1``. Standalone it is ours, which takes all of PyTorch's shapes."""
    if isinstance(module, torch.nn.Dropout2d):
        # PyTorch reads three axes as (N, C, L) here, not as an image without a batch
        two = layers.Dropout2d if module.p == 1 else nn.Dropout2d
        return LayerSpec(two, _probability(module), standalone=layers.Dropout2d)
    three = layers.Dropout3d if module.p == 1 else nn.Dropout3d
    return LayerSpec(three, _probability(module), rank=3, standalone=layers.Dropout3d)


@rule(
    torch.nn.AlphaDropout,
    ops=["aten.alpha_dropout.default", "aten.alpha_dropout_.default"],
    target="layers.AlphaDropout",
)
def alpha_dropout(module: torch.nn.AlphaDropout) -> LayerSpec:
    """``layers.AlphaDropout``: MLX has none."""
    return LayerSpec(layers.AlphaDropout, _probability(module), axes=Axes.ANY)


@rule(
    torch.nn.FeatureAlphaDropout,
    ops=["aten.feature_alpha_dropout.default", "aten.feature_alpha_dropout_.default"],
    target="layers.FeatureAlphaDropout",
)
def feature_alpha_dropout(module: torch.nn.FeatureAlphaDropout) -> LayerSpec:
    """``layers.FeatureAlphaDropout``: MLX has none."""
    return LayerSpec(layers.FeatureAlphaDropout, _probability(module))


def _probability(module: Any) -> tuple[float, ...]:
    return () if module.p == 0.5 else (module.p,)
