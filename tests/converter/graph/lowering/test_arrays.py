"""Constants in the code that reads them."""

import pytest
import torch
from torch import nn

import mlxport


class Times(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return x * self.make()


# what makes a constant -> what stands in the source
CONSTANTS = {
    "number": (lambda: torch.tensor(2.0), "x * 2.0"),
    "number, computed": (lambda: torch.tensor(2.0).sqrt(), "x * 1.4142135"),
    "number, computed in float64": (
        lambda: torch.tensor(2.0, dtype=torch.float64).sqrt().float(),
        "x * 1.4142135",
    ),
    "array": (lambda: torch.tensor([0.3, 0.7, 1.9]), "x * mx.array([0.3, 0.7, 1.9])"),
    "array, computed": (lambda: torch.tensor([1, 2, 4]).flip(0), "x * mx.array([4, 2, 1]"),
    "array, computed in float64": (
        lambda: torch.tensor([0.3, 0.7, 1.9], dtype=torch.float64).sqrt().float(),
        "x * mx.array([0.5477226, 0.83666, 1.3784049])",
    ),
}


@pytest.mark.parametrize(("make", "written"), CONSTANTS.values(), ids=CONSTANTS)
def test_a_constant_without_axes_is_a_number_beside_an_array(make, written):
    converted = mlxport.convert(Times(make), torch.arange(6.0).reshape(2, 3))
    assert converted.report.passed, converted.report
    assert f"return {written}" in converted.source
