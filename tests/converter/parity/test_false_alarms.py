"""Right conversions pass whatever the inputs: PyTorch being exact by luck is no fault of MLX.

``MLXPORT_SWEEP=1`` tries 100 inputs of each network, otherwise some of those on which one run of
PyTorch underrates its noise.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import nn

import mlxport

SWEEP = os.environ.get("MLXPORT_SWEEP") == "1"


class Score(nn.Module):
    """One number, of which PyTorch's error says little about its noise."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(self.norm(self.a(x)))).mean()


class Deep(nn.Module):
    """Sums behind several layers, over a whole tensor and of one row."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Linear(32, 32), nn.GELU()) for _ in range(6)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layers(x).pow(2).mean(), self.layers(x).sum(-1)[:1]


# a network, its inputs, and seeds of some on which one run would not do
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], tuple[int, ...]]] = {
    "a row far from zero, normalised": (
        lambda: nn.Sequential(nn.LayerNorm(192)),
        lambda: torch.randn(1, 192) + 8,
        (7, 9, 50, 87),
    ),
    "one number": (Score, lambda: torch.randn(2, 64), (66, 67)),
    "sums": (Deep, lambda: torch.randn(3, 32), (37, 85)),
    "groups, softmax": (
        lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Softmax(1)),
        lambda: torch.randn(1, 4, 3, 3) + 5,
        (0,),
    ),
    "convolution, mean": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)),
        lambda: torch.randn(1, 3, 5, 5),
        (0,),
    ),
}


@pytest.mark.parametrize(("build", "draw", "seeds"), NETWORKS.values(), ids=NETWORKS)
def test_no_input_raises_a_false_alarm(
    build: Callable[[], nn.Module], draw: Callable[[], torch.Tensor], seeds: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    module = build().eval()
    model = mlxport.convert(module, draw(), verify=False).model
    for seed in range(100) if SWEEP else seeds:
        torch.manual_seed(seed)
        report = mlxport.verify(model, module, draw())
        assert report.passed, f"seed {seed}: {report.verdict}"


def test_a_fault_as_large_as_the_luck_is_seen() -> None:
    """The second judgement forgives roundings and nothing else."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.LayerNorm(192)).eval()
    x = torch.randn(1, 192) + 8
    model = mlxport.convert(module, x, verify=False).model
    model.layers[0].eps = 1.001e-5 + 1e-4
    report = mlxport.verify(model, module, x)
    assert report.culprit == "0"
