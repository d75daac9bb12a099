"""A small 3-D segmentation U-Net, written as one would write it for PyTorch alone."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3x3 convolutions, each with batch norm and ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm3d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm3d(out_channels),
        nn.ReLU(inplace=True),
    )


class UNet3d(nn.Module):
    """Class scores for every voxel, of volumes of any size.

    Args:
        in_channels: of the volume.
        classes: of voxels.
        widths: channels at each resolution, the finest first.

    Shape:
        ``(N, in_channels, D, H, W)`` to ``(N, classes, D, H, W)``.
    """

    def __init__(
        self, in_channels: int = 1, classes: int = 2, widths: Sequence[int] = (8, 16, 32)
    ) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.stem = double_conv(in_channels, widths[0])
        # Rounding up keeps the last slice of an odd size; the decoder cuts what is then too much.
        self.pool = nn.MaxPool3d(2, ceil_mode=True)
        self.encoder = nn.ModuleList(double_conv(fine, coarse) for fine, coarse in steps)
        self.upsample = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, 3, stride=2, padding=1, output_padding=1)
            for fine, coarse in reversed(steps)
        )
        self.decoder = nn.ModuleList(double_conv(2 * fine, fine) for fine, _ in reversed(steps))
        self.head = nn.Conv3d(widths[0], classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores (logits) of every voxel."""
        x = self.stem(x)
        skips = []
        for encode in self.encoder:
            skips.append(x)
            x = encode(self.pool(x))
        for upsample, decode in zip(self.upsample, self.decoder, strict=True):
            skip = skips.pop()
            depth, height, width = skip.shape[2:]
            x = upsample(x)[:, :, :depth, :height, :width]
            x = decode(torch.cat([skip, x], dim=1))
        scores: torch.Tensor = self.head(x)
        return scores
