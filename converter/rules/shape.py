"""Rules for pixel and channel shuffles, Flatten, Unflatten, Unfold and Fold."""

from __future__ import annotations

import torch

from mlxport import layers
from mlxport.converter.rules.registry import Axes, LayerSpec, changed, compacted, rule

_BLOCKS = {"dilation": 1, "padding": 0, "stride": 1}


@rule(
    torch.nn.PixelShuffle,
    ops=["aten.pixel_shuffle.default"],
    target="layers.PixelShuffle",
    restrictions="one batch axis at most",
)
def pixel_shuffle(module: torch.nn.PixelShuffle) -> LayerSpec:
    """Our layer of the same name: MLX has none."""
    return LayerSpec(layers.PixelShuffle, (module.upscale_factor,), rank=2)


@rule(
    torch.nn.PixelUnshuffle,
    ops=["aten.pixel_unshuffle.default"],
    target="layers.PixelUnshuffle",
    restrictions="one batch axis at most",
)
def pixel_unshuffle(module: torch.nn.PixelUnshuffle) -> LayerSpec:
    """Our layer of the same name: MLX has none."""
    return LayerSpec(layers.PixelUnshuffle, (module.downscale_factor,), rank=2)


@rule(
    torch.nn.ChannelShuffle,
    ops=["aten.channel_shuffle.default"],
    target="layers.ChannelShuffle",
)
def channel_shuffle(module: torch.nn.ChannelShuffle) -> LayerSpec:
    """Our layer of the same name: MLX has none."""
    return LayerSpec(layers.ChannelShuffle, (module.groups,))


@rule(
    torch.nn.Flatten,
    ops=["aten.flatten.using_ints"],
    target="layers.Flatten",
    leaf=False,
)
def flatten(module: torch.nn.Flatten) -> LayerSpec:
    """``layers.Flatten``, in PyTorch's axis order, which a linear layer after it relies on."""
    arguments = changed(
        {"start_axis": 1, "end_axis": -1}, start_axis=module.start_dim, end_axis=module.end_dim
    )
    return LayerSpec(layers.Flatten, (), arguments, axes=Axes.LOGICAL)


@rule(
    torch.nn.Unflatten,
    ops=["aten.unflatten.int"],
    target="layers.Unflatten",
    leaf=False,
)
def unflatten(module: torch.nn.Unflatten) -> LayerSpec:
    """``layers.Unflatten``, in PyTorch's axis order."""
    shape = tuple(int(size) for size in module.unflattened_size)
    return LayerSpec(layers.Unflatten, (module.dim, shape), axes=Axes.LOGICAL)


@rule(torch.nn.Unfold, ops=["aten.im2col.default"], target="layers.Unfold", leaf=False)
def unfold(module: torch.nn.Unfold) -> LayerSpec:
    """Our layer of the same name: MLX has none."""
    return LayerSpec(layers.Unfold, (compacted(module.kernel_size),), _blocks(module), rank=2)


@rule(torch.nn.Fold, ops=["aten.col2im.default"], target="layers.Fold", leaf=False)
def fold(module: torch.nn.Fold) -> LayerSpec:
    """Our layer of the same name: MLX has none."""
    sizes = (compacted(module.output_size), compacted(module.kernel_size))
    return LayerSpec(layers.Fold, sizes, _blocks(module), rank=1)


def _blocks(module: torch.nn.Unfold | torch.nn.Fold) -> dict[str, object]:
    return changed(_BLOCKS, dilation=module.dilation, padding=module.padding, stride=module.stride)
