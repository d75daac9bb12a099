"""The second set of sizes is found where torch's guards are content, or the line is named."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import mlxport


class Strides(nn.Module):
    """Takes lengths that are multiples of 320."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length = x.shape
        return x.reshape(n, length // 320, 320).mean(-1)


class AtMost(nn.Module):
    """Takes no larger sizes than the example's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[1] <= 48 else x


class SixOnly(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[1] // 2 == 3 and x.shape[1] % 2 == 0 else x - 1


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.table


def convert(model: nn.Module, *shape: int, dynamic: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlxport.convert(model.eval(), torch.ones(shape), dynamic=dynamic)


@pytest.mark.parametrize(
    ("model", "length", "allowed"),
    [
        (Strides(), 640, lambda n: n % 320 == 0 and n != 640),
        (AtMost(), 48, lambda n: n < 48),
    ],
    ids=["multiples", "smaller"],
)
def test_sizes_that_meet_the_guards_are_found(model: nn.Module, length: int, allowed: Any) -> None:
    report = convert(model, 2, length, dynamic=(0, 1)).report
    assert report.passed
    other = report.others[0].sizes
    assert allowed(other["length"])
    assert other["n"] != 2


@pytest.mark.parametrize(("model", "line"), [(SixOnly(), "x - 1"), (Table(), "x * self.table")])
def test_a_refusal_names_the_line(model: nn.Module, line: str) -> None:
    with pytest.raises(mlxport.ConversionError) as caught:
        convert(model, 2, 6, 3, dynamic=1)
    assert line in str(caught.value)
    assert "test_other_inputs.py:" in str(caught.value)
