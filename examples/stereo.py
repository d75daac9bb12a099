"""A small stereo network in the manner of PSMNet: disparity from a left and a right image.

Features of both images meet in a cost volume over disparities, an hourglass of 3-D convolutions
regularises it, and the disparity is the mean over its softmax.
"""

import torch
import torch.nn.functional as F
from torch import nn


def conv2d(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    """A 3x3 convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def conv3d(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """A 3x3x3 convolution with batch norm."""
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm3d(out_channels),
    )


def deconv3d(in_channels: int, out_channels: int) -> nn.Sequential:
    """A transposed 3x3x3 convolution to twice the size, with batch norm."""
    return nn.Sequential(
        nn.ConvTranspose3d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False
        ),
        nn.BatchNorm3d(out_channels),
    )


class Hourglass(nn.Module):
    """Down to a quarter of the size and back, with skips that are added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down1 = conv3d(width, 2 * width, stride=2)
        self.down2 = conv3d(2 * width, 2 * width, stride=2)
        self.up1 = deconv3d(2 * width, 2 * width)
        self.up2 = deconv3d(2 * width, width)

    def forward(self, cost: torch.Tensor) -> torch.Tensor:
        """Return a cost volume of the same shape."""
        half = F.relu(self.down1(cost), inplace=True)
        quarter = F.relu(self.down2(half), inplace=True)
        half = F.relu(self.up1(quarter) + half, inplace=True)
        return F.relu(self.up2(half) + cost, inplace=True)


class StereoNet(nn.Module):
    """Disparity, in pixels, of every pixel of the left image.

    Args:
        max_disparity: disparities considered, a multiple of 16.
        width: channels of the features of one image.

    Shape:
        Two images ``(N, 3, H, W)``, H and W multiples of 16, to ``(N, H, W)``.
    """

    disparities: torch.Tensor

    def __init__(self, max_disparity: int = 32, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv2d(3, width, stride=2),
            conv2d(width, width, stride=2),
            conv2d(width, width, dilation=2),
            nn.Conv2d(width, width, 1, bias=False),
        )
        self.enter = conv3d(2 * width, width)
        self.hourglass = Hourglass(width)
        self.head = nn.Conv3d(width, 1, 3, padding=1, bias=False)
        self.register_buffer("disparities", torch.arange(max_disparity).float(), persistent=False)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return the expected disparity under the softmax of the cost volume (soft-argmin)."""
        cost = self.cost_volume(self.features(left), self.features(right))
        cost = self.head(self.hourglass(F.relu(self.enter(cost))))
        size = (len(self.disparities), *left.shape[2:])
        cost = F.interpolate(cost, size=size, mode="trilinear", align_corners=False)
        probability = F.softmax(cost.squeeze(1), dim=1)
        return torch.sum(probability * self.disparities.view(1, -1, 1, 1), dim=1)

    def cost_volume(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Lay the left features beside the right ones shifted by every disparity."""
        batch, channels, height, width = left.shape
        depth = len(self.disparities) // 4  # the features are at a quarter of the images' size
        cost = left.new_zeros(batch, 2 * channels, depth, height, width)
        for d in range(depth):
            cost[:, :channels, d, :, d:] = left[:, :, :, d:]
            cost[:, channels:, d, :, d:] = right[:, :, :, : width - d]
        return cost
