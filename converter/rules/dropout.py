"""Rules for dropout layers. In evaluation all of them return their input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.nn as nn
import torch

from mlxport import layers
from mlxport.converter.rules.registry import Axes, LayerSpec, rule

# what PyTorch's functions put around the op for input without a batch axis; the layers need none
_WITHOUT_BATCH = [
    f"aten.{name}"
    for name in ("unsqueeze.default", "unsqueeze_.default", "squeeze.dim", "squeeze_.dim")
]


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
    side_effect_ops=_WITHOUT_BATCH,
)
def dropout1d(module: torch.nn.Dropout1d) -> LayerSpec:
    """``layers.Dropout1d``: MLX has none."""
    return LayerSpec(layers.Dropout1d, _probability(module), rank=1)


@rule(
    torch.nn.Dropout2d,
    ops=["aten.feature_dropout.default", "aten.feature_dropout_.default"],
    target="mlx.nn.Dropout2d, layers.Dropout2d",
)
@rule(
    torch.nn.Dropout3d,
    ops=["aten.feature_dropout.default", "aten.feature_dropout_.default"],
    target="mlx.nn.Dropout3d, layers.Dropout3d",
    side_effect_ops=_WITHOUT_BATCH,
)
def channel_dropout(module: torch.nn.Dropout2d | torch.nn.Dropout3d) -> LayerSpec:
    """Ours, which take all of PyTorch's shapes; MLX's for batches, but for ``p=1``."""
    if isinstance(module, torch.nn.Dropout2d):
        # PyTorch reads three axes as (N, C, L) here, not as an image without a batch
        spec = LayerSpec(layers.Dropout2d, _probability(module), by_ndim={4: nn.Dropout2d})
    else:
        spec = LayerSpec(layers.Dropout3d, _probability(module), rank=3, by_ndim={5: nn.Dropout3d})
    return replace(spec, by_ndim={}) if module.p == 1 else spec


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
