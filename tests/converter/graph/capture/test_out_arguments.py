"""Results written by ``out=`` into tensors of another shape are refused, others followed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import CaptureError


class Writes(nn.Module):
    def __init__(self, write: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        target = torch.zeros(3, 2)
        self.write(target)
        return x + target


REFUSED: dict[str, tuple[Callable[[torch.Tensor], object], str]] = {
    "whole": (lambda b: torch.arange(6.0, out=b.t()), r"aten\.arange\.out: \(6,\) into \(2, 3\)"),
    "part": (lambda b: torch.linspace(0, 1, 4, out=b[:2]), r"linspace\.out: \(4,\) into \(2, 2\)"),
}


@pytest.mark.parametrize(("write", "said"), REFUSED.values(), ids=REFUSED)
def test_another_shape_is_refused(write: Callable[[torch.Tensor], object], said: str) -> None:
    with pytest.raises(CaptureError, match=said):
        mlxport.convert(Writes(write), torch.randn(3, 2))


FOLLOWED: dict[str, Callable[[torch.Tensor], object]] = {
    "flat view": lambda b: torch.arange(6.0, out=b.view(-1)),
    "column": lambda b: torch.arange(3.0, out=b[:, 1]),
    "transposed": lambda b: torch.add(torch.ones(2, 3), 1, out=b.t()),
}


@pytest.mark.parametrize("write", FOLLOWED.values(), ids=FOLLOWED)
def test_the_result_s_shape_is_followed(write: Callable[[torch.Tensor], object]) -> None:
    assert mlxport.convert(Writes(write), torch.randn(3, 2)).report.passed
