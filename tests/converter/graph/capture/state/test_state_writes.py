"""Where a captured model writes its state."""

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import mlxport


class Cell(nn.Module):
    """Gives a new state first, and last what it makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.tanh(self.linear(x) + h)
        return h, h * 2


class Assigns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = Cell()
        self.register_buffer("h", torch.zeros(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.h, y = self.cell(x, self.h)
        return y


class Copies(Assigns):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, y = self.cell(x, self.h)
        self.h.copy_(h)
        return y


@pytest.mark.parametrize("make", [Assigns, Copies])
def test_what_a_module_gives_besides_its_last_value_is_kept(make: type[Assigns]) -> None:
    model, x = make().eval(), torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    converted = mlxport.convert(model, x)
    assert converted.report.passed, converted.report
    with torch.no_grad():
        for given in (x, x + 1, x - 1):
            found = converted.model(mx.array(given.numpy()))
            np.testing.assert_allclose(found, model(given), atol=1e-6)
