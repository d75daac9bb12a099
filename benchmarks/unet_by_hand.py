"""The example's U-Net as one writes it for MLX by hand, with the layers ``mlx.nn`` has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn


class BatchNorm(nn.Module):
    """Batch norm in evaluation; ``mlx.nn.BatchNorm`` refuses volumes."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias = mx.ones(features), mx.zeros(features)
        self.running_mean, self.running_var = mx.zeros(features), mx.ones(features)

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise ``(N, D, H, W, C)``."""
        x = (x - self.running_mean) * mx.rsqrt(self.running_var + 1e-5)
        return x * self.weight + self.bias


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1, bias=False),
        BatchNorm(outputs),
        nn.ReLU(),
        nn.Conv3d(outputs, outputs, 3, padding=1, bias=False),
        BatchNorm(outputs),
        nn.ReLU(),
    )


class UNet3d(nn.Module):
    """``(N, D, H, W, in_channels)`` to ``(N, D, H, W, classes)``; D, H and W divide by 4."""

    def __init__(
        self, in_channels: int = 1, classes: int = 2, widths: Sequence[int] = (8, 16, 32)
    ) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.stem = double_conv(in_channels, widths[0])
        self.pool = nn.MaxPool3d(2, 2)
        self.encoder = [double_conv(fine, coarse) for fine, coarse in steps]
        self.upsample = [
            nn.ConvTranspose3d(coarse, fine, 3, stride=2, padding=1, output_padding=1)
            for fine, coarse in reversed(steps)
        ]
        self.decoder = [double_conv(2 * fine, fine) for fine, _ in reversed(steps)]
        self.head = nn.Conv3d(widths[0], classes, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """Return the scores of every voxel."""
        x = self.stem(x)
        skips = []
        for encode in self.encoder:
            skips.append(x)
            x = encode(self.pool(x))
        for upsample, decode in zip(self.upsample, self.decoder, strict=True):
            x = decode(mx.concatenate([skips.pop(), upsample(x)], axis=-1))
        return self.head(x)
