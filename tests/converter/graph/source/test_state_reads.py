"""State that is read and written by its attribute, where that gives the same."""

import mlx.core as mx
import numpy as np
import torch
from torch import nn

import mlxport


class TanhAndTwice(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.tanh(x)
        return h, h * 2


class KeepsTanh(nn.Module):
    """Keeps what a module gives besides; the call that it keeps of is written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = TanhAndTwice()
        self.register_buffer("last", torch.ones(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, y = self.inner(x[None])  # of other axes, so the next call has a body of its own
        h, twice = self.inner(x)
        y = y + self.last
        self.last = h
        return y + twice


def test_what_is_used_before_it_is_written_is_not_read_from_the_state() -> None:
    model, x = KeepsTanh().eval(), torch.arange(6.0).reshape(2, 3) / 4
    converted = mlxport.convert(model, x)
    assert "h = mx.tanh(x)\n        self.last = h\n" in converted.source
    for given in (x, x + 1, x - 1):
        found = converted.model(mx.array(given.numpy()))
        np.testing.assert_allclose(found, model(given), rtol=1e-6)
