"""Random numbers that depend on no input are drawn at every call, never written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport

DRAWS: dict[str, Callable[[], torch.Tensor]] = {
    "rand": lambda: torch.rand(4),
    "randn": lambda: torch.randn(2, 2).reshape(4),
    "randint": lambda: torch.randint(0, 1000, (4,)).float(),
    "randperm": lambda: torch.randperm(40)[:4].float(),
    "normal of numbers": lambda: torch.normal(0.0, 1.0, (4,)),
    "normal of constants": lambda: torch.normal(torch.zeros(4), torch.ones(4)),
    "bernoulli": lambda: torch.bernoulli(torch.full((64,), 0.5)).reshape(4, 16).sum(1),
    "multinomial": lambda: torch.multinomial(torch.ones(50), 4).float(),
    "like zeros": lambda: torch.rand_like(torch.zeros(4)),
    "filled": lambda: torch.zeros(4).uniform_(),
    "filled by exponential": lambda: torch.zeros(4).exponential_(),
    "a mask of": lambda: (torch.rand(4, 16) > 0.5).float().sum(1),
    "sorted": lambda: torch.randn(4).sort().values,
    "beside a constant": lambda: torch.cat([torch.arange(2.0), torch.rand(2)]),
}


class Draws(nn.Module):
    """Adds what is drawn to its input."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: x + draw() for name, draw in DRAWS.items()}


@pytest.fixture(scope="module")
def converted() -> Any:
    return mlxport.convert(Draws(), torch.zeros(4))


def test_parity_holds(converted: Any) -> None:
    assert converted.report.passed, converted.report.to_text()


@pytest.mark.parametrize("name", DRAWS)
def test_another_call_draws_others(name: str, converted: Any) -> None:
    first, second = (converted.model(mx.zeros(4))[name] for _ in range(2))
    assert not mx.array_equal(first, second)
