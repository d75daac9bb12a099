"""The classes of a model."""

import torch
from torch import nn

import mlxport


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * 2


class Blocks(nn.ModuleList):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self:
            x = block(x)
        return x


def test_a_list_of_modules_that_is_the_model_is_an_attribute_of_it_alone() -> None:
    converted = mlxport.convert(Blocks([Block(), Block()]), torch.ones(2, 3))
    assert converted.report.passed
    assert converted.source.count("self.layers = [Block() for _ in range(2)]") == 1
    assert converted.source.count("self.linear = nn.Linear(3, 3)") == 1
