"""A converted U-Net beside one written for MLX by hand, and beside PyTorch's."""

from __future__ import annotations

import mlx.core as mx
import torch
from conv_transpose import backward, forward, torch_backward, torch_forward
from timing import Table, milliseconds, side_by_side, times
from unet_by_hand import UNet3d as ByHand

import mlxport
from mlxport.examples.unet3d import UNet3d

SIZES = (32, 32, 32)
WIDTHS = (16, 32, 64)


def tables() -> list[Table]:
    """Measure everything."""
    torch.manual_seed(0)
    module = UNet3d(widths=WIDTHS).eval()
    x = torch.randn(1, 1, *SIZES)
    converted = mlxport.convert(module, x, channels_last=True, verify=False).model
    by_hand = ByHand(widths=WIDTHS)
    by_hand.eval()
    values = mx.array(x.movedim(1, -1).numpy())
    ways = {
        "by hand": forward(by_hand, values),
        "converted": forward(converted, values),
        "by hand, compiled": forward(mx.compile(by_hand), values),
        "converted, compiled": forward(mx.compile(converted), values),
        "torch": torch_forward(module, x),
    }
    took = side_by_side(ways, seconds=20)
    learning = {
        "by hand": backward(by_hand, values),
        "converted": backward(converted, values),
        "torch": torch_backward(module, x),
    }
    learnt = side_by_side(learning, seconds=20)
    text = (
        f"The example's 3-D U-Net, widths {WIDTHS}, on a volume of {SIZES}, float32, milliseconds "
        "of one call. By hand: the same network over the layers `mlx.nn` has."
    )
    rows = [[name, milliseconds(s), times(s / took["by hand"])] for name, s in took.items()]
    rows += [
        [f"{name}, with gradients", milliseconds(s), times(s / learnt["by hand"])]
        for name, s in learnt.items()
    ]
    return [Table("Converted models", text, ["model", "ms", "to the one by hand"], rows)]
