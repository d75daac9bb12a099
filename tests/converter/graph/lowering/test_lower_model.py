"""Where a model begins and ends."""

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport


class Pyramid(nn.Module):
    """Gives what convolutions give, whose axes MLX has in another order, and what they do not."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        one = self.one(x)
        return one, self.two(one), x.mean((2, 3))


SHAPES = {
    "channels_first": [(2, 4, 6, 5), (2, 5, 5, 4), (2, 3)],
    "channels_last": [(2, 6, 5, 4), (2, 5, 4, 5), (2, 3)],
}


@pytest.mark.parametrize("layout", SHAPES)
def test_results_have_the_axes_that_the_caller_expects(layout: str) -> None:
    model, x = Pyramid().eval(), torch.randn(2, 3, 6, 5)
    converted = mlxport.convert(model, x, channels_last=layout == "channels_last")
    assert converted.report.passed, converted.report
    x = x.permute(0, 2, 3, 1) if layout == "channels_last" else x
    given = converted.model(mx.array(x.numpy()))
    assert [one.shape for one in given] == SHAPES[layout]
