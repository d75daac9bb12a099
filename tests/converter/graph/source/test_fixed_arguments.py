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


class Between(nn.Module):
    def forward(self, x: torch.Tensor, mode: str, y: torch.Tensor, scale: float = 2.0) -> Any:
        return (x * y if mode == "times" else x + y) * scale


class Optional(nn.Module):
    def forward(self, mode: str = "times", x: Any = None, n: int = 1, y: Any = None) -> Any:
        return (x * y if mode == "times" else x + y) * n


class Spread(nn.Module):
    def forward(self, *given: Any) -> Any:
        x, mode, y = given
        return x * y if mode == "times" else x + y


class Several(nn.Module):
    def forward(self, first: Any, mode: str, rest: list[Any], *, bias: Any) -> Any:
        return first * rest[0] + rest[1] + bias if mode == "times" else first


A, B, C = (torch.full((2, 3), value) for value in (2.0, 3.0, 4.0))

CALLS: dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = {
    "between": (Between(), (A, "times", B), {}),
    "between and behind": (Between(), (A, "times", B, 3.0), {}),
    "the tensor by name": (Between(), (A, "plus"), {"y": B}),
    "all by name": (Between(), (), {"x": A, "y": B, "mode": "plus"}),
    "first": (Optional(), ("times", A, 2, B), {}),
    "defaults left out": (Optional(), ("plus", A), {"y": B}),
    "*args": (Spread(), (A, "times", B), {}),
    "a list behind it": (Several(), (A, "times", [B, C]), {"bias": C}),
}


def to_mlx(value: Any) -> Any:
    if isinstance(value, list):
        return [to_mlx(item) for item in value]
    return mx.array(value.numpy()) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", CALLS)
def test_a_fixed_argument_before_a_tensor_keeps_its_place(name: str) -> None:
    model, args, kwargs = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = mlxport.convert(model.eval(), args, kwargs)
    assert converted.report is not None
    assert converted.report.passed
    given = converted.model(*map(to_mlx, args), **{key: to_mlx(v) for key, v in kwargs.items()})
    assert given.tolist() == model(*args, **kwargs).tolist()


def test_what_stands_behind_a_fixed_argument_is_missed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = mlxport.convert(Between().eval(), (A, "times", B))
    with pytest.raises(TypeError, match="missing argument: y"):
        converted.model(to_mlx(A))
    with pytest.raises(ValueError, match="converted for mode='times'"):
        converted.model(to_mlx(A), "plus", to_mlx(B))
    assert converted.model(to_mlx(A), y=to_mlx(B)).shape == (2, 3)
