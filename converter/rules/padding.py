"""Rules for padding layers. MLX has none, so all of them become layers of ``mlxport.layers``."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn
import torch

from mlxport import layers
from mlxport.converter.rules.registry import LayerSpec, compacted, rule

_TARGETS: dict[type[torch.nn.Module], tuple[type[nn.Module], int]] = {
    torch.nn.ConstantPad1d: (layers.ConstantPad1d, 1),
    torch.nn.ConstantPad2d: (layers.ConstantPad2d, 2),
    torch.nn.ConstantPad3d: (layers.ConstantPad3d, 3),
    torch.nn.ZeroPad1d: (layers.ZeroPad1d, 1),
    torch.nn.ZeroPad2d: (layers.ZeroPad2d, 2),
    torch.nn.ZeroPad3d: (layers.ZeroPad3d, 3),
    torch.nn.ReflectionPad1d: (layers.ReflectionPad1d, 1),
    torch.nn.ReflectionPad2d: (layers.ReflectionPad2d, 2),
    torch.nn.ReflectionPad3d: (layers.ReflectionPad3d, 3),
    torch.nn.ReplicationPad1d: (layers.ReplicationPad1d, 1),
    torch.nn.ReplicationPad2d: (layers.ReplicationPad2d, 2),
    torch.nn.ReplicationPad3d: (layers.ReplicationPad3d, 3),
    torch.nn.CircularPad1d: (layers.CircularPad1d, 1),
    torch.nn.CircularPad2d: (layers.CircularPad2d, 2),
    torch.nn.CircularPad3d: (layers.CircularPad3d, 3),
}
_CONSTANT = (torch.nn.ConstantPad1d, torch.nn.ConstantPad2d, torch.nn.ConstantPad3d)


def padding(module: Any) -> LayerSpec:
    """Our layer of the same name, with the widths in PyTorch's order."""
    source = next(cls for cls in type(module).__mro__ if cls in _TARGETS)
    target, rank = _TARGETS[source]
    value = (module.value,) if source in _CONSTANT else ()
    return LayerSpec(target, (compacted(module.padding), *value), rank=rank)


for _source, (_target, _) in _TARGETS.items():
    rule(_source, ops=["aten.pad.default"], target=f"layers.{_target.__name__}")(padding)
