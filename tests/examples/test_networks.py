"""The example networks do what they say, in torch; tests/models converts them."""

import pytest
import torch
from torch import nn

from mlxport.examples.stereo import StereoNet
from mlxport.examples.unet3d import UNet3d


@pytest.mark.parametrize("size", [(8, 12, 16), (7, 9, 11), (5, 8, 6)], ids=str)
def test_unet3d_scores_every_voxel(size: tuple[int, ...]) -> None:
    model = UNet3d(in_channels=2, classes=3, widths=(2, 4, 6)).eval()
    assert model(torch.randn(1, 2, *size)).shape == (1, 3, *size)


def test_unet3d_upsamples_to_twice_the_size() -> None:
    (up,) = [m for m in UNet3d(widths=(2, 4)).modules() if isinstance(m, nn.ConvTranspose3d)]
    settings = (up.kernel_size, up.stride, up.padding, up.output_padding)
    assert settings == ((3,) * 3, (2,) * 3, (1,) * 3, (1,) * 3)


def test_stereo_disparity_is_within_its_range() -> None:
    model = StereoNet(max_disparity=16, width=2).eval()
    disparity = model(torch.randn(1, 3, 16, 32), torch.randn(1, 3, 16, 32))
    assert disparity.shape == (1, 16, 32)
    assert 0 <= disparity.min() <= disparity.max() <= 15


def test_stereo_cost_volume_pairs_shifted_features() -> None:
    left, right = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8)
    cost = StereoNet(max_disparity=16, width=2).cost_volume(left, right)
    assert cost.shape == (1, 4, 4, 3, 8)
    # At disparity 3, pixel 5 of the left image meets pixel 2 of the right one.
    assert torch.equal(cost[0, :, 3, :, 5], torch.cat([left[0, :, :, 5], right[0, :, :, 2]]))
    assert not cost[0, :, 3, :, :3].any()
