"""Arguments that a conversion fixes are taken by the MLX model, and checked."""

from __future__ import annotations

import warnings
from typing import Any

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport


class Frames(nn.Module):
    def forward(
        self,
        x: torch.Tensor,
        frames: int = 1,
        *,
        mode: str = "sum",
        mask: torch.Tensor | None = None,
        options: dict[str, Any] | None = None,
        sizes: tuple[int, ...] = (),
    ) -> torch.Tensor:
        y = x.reshape(frames, -1)
        y = y.sum(1) if mode == "sum" else y.mean(1)
        return y * options["scale"] if options and options["on"] else y


def convert(*args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlxport.convert(Frames().eval(), args, kwargs)


X, GIVEN = torch.ones(4, 6), mx.ones((4, 6))


def test_the_call_of_the_conversion_is_taken() -> None:
    converted = convert(X, frames=2, mode="mean", mask=None, sizes=(3, 4))
    assert converted.report.passed
    expected = [1.0, 1.0]
    assert converted.model(GIVEN).tolist() == expected
    assert converted.model(GIVEN, 2).tolist() == expected
    every = {"frames": 2, "mode": "mean", "mask": None, "sizes": (3, 4)}
    assert converted.model(GIVEN, **every).tolist() == expected


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"frames": 3}, "converted for frames=2"),
        ({"mode": "sum"}, "converted for mode='mean'"),
        ({"mask": GIVEN}, "converted for mask=None"),
        ({"sizes": (3, 5)}, r"converted for sizes=\(3, 4\)"),
    ],
    ids=["number", "text", "nothing", "tuple"],
)
def test_another_value_is_refused(other: dict[str, Any], message: str) -> None:
    converted = convert(X, frames=2, mode="mean", mask=None, sizes=(3, 4))
    with pytest.raises(ValueError, match=message):
        converted.model(GIVEN, **other)


def test_values_beside_tensors_are_checked_too() -> None:
    converted = convert(X, options={"scale": torch.full((1,), 3.0), "on": True})
    scale = mx.full((1,), 3.0)
    assert converted.report.passed
    assert converted.model(GIVEN, options={"scale": scale, "on": True}).tolist() == [72.0]
    assert converted.model(GIVEN, options={"scale": scale}).tolist() == [72.0]
    with pytest.raises(ValueError, match=r"converted for options\['on'\]=True"):
        converted.model(GIVEN, options={"scale": scale, "on": False})


class Hides(nn.Module):
    """An argument is called like a function that the model needs."""

    def forward(self, x: torch.Tensor, interpolate: bool) -> torch.Tensor:
        return nn.functional.interpolate(x, scale_factor=2.0) if interpolate else x


def test_a_fixed_argument_hides_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = mlxport.convert(Hides(), (torch.ones(1, 2, 3), True))
    assert converted.report is not None
    assert converted.report.passed
    assert converted.model(mx.ones((1, 2, 3)), True).shape == (1, 2, 6)
