"""The calls of converted models beside the table of Metal, and how a report tells of them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.parity.report.metal_check import MetalCheck, MetalRemark
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run import check_metal
from mlxport.converter.parity.run.metal_table import VERSIONS, Effect, Row


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(1 + self.stem(x) ** 2)


def converted(net: nn.Module, *inputs: torch.Tensor) -> Any:
    return mlxport.convert(net, inputs or (torch.randn(1, 2, 5, 5),))


def refusing(monkeypatch: pytest.MonkeyPatch, *primitives: str) -> None:
    row = Row(primitives, lambda call: True, Effect.REFUSED, "for a test")
    monkeypatch.setattr(check_metal, "rows_of", lambda call: [row] * (call.name in primitives))


def test_without_obstacles_the_report_says_so() -> None:
    report = converted(Net()).report
    assert report.metal.obstacles == []
    assert report.metal.kinds > 5
    sentence = f"Metal: {report.metal.kinds} kinds of call, no known obstacle in MLX {VERSIONS[-1]}"
    for text in (report.to_text(width=1000), report.to_html(), report.to_markdown()):
        assert sentence in text


def test_an_obstacle_is_named_with_layer_and_line(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, "Convolution", "Log")
    result = converted(Net())
    lines = result.source.splitlines()
    assert result.report.passed, "the table judges nothing"
    layers = {remark.call.partition(" ")[0]: remark for remark in result.report.metal.obstacles}
    assert layers["Convolution"].layer == "stem.0"
    assert layers["Log"].layer == ""
    assert "mx.log" in lines[layers["Log"].line - 1]
    assert "stem" in "".join(lines[layers["Convolution"].line - 2 : layers["Convolution"].line])
    assert "2 refused by MLX" in result.report.to_text(width=1000)
    assert "Log of float32 refused: for a test" in result.report.to_html()


def test_calls_that_name_the_cpu_stream_are_none() -> None:
    class Inverse(nn.Module):
        def forward(self, x: torch.Tensor, places: torch.Tensor) -> Any:
            counts = torch.zeros(3, dtype=torch.int64).index_add(0, places, places)
            return torch.linalg.inv(x), counts, torch.sort(places > 1).values, torch.eye(2).long()

    x, places = torch.eye(3) + 0.1 * torch.randn(3, 3), torch.tensor([0, 2, 2])
    assert converted(Inverse(), x, places).report.metal.obstacles == []


def test_random_numbers_are_the_same_as_without() -> None:
    mx.random.seed(3)
    mx.random.normal((2,))
    key = mx.random.state[0].tolist()

    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    mlxport.convert(Noise(), torch.randn(3))
    assert mx.random.state[0].tolist() == key


def test_layers_go_the_way_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, "Convolution")
    up = nn.Sequential(nn.ConvTranspose3d(16, 16, 3, padding=1))
    before = mx.default_device()
    (remark,) = converted(up, torch.randn(1, 16, 4, 4, 4)).report.metal.obstacles
    assert remark.layer == "0"
    assert mx.default_device() == before


def test_a_check_survives_its_report() -> None:
    remark = MetalRemark("Scatter of int64", "refused", "why", "a.b", 7, 2)
    check = MetalCheck("0.32.4", 3, (remark,), ("linalg.lu",))
    report = converted(Net()).report
    data = report.to_json() | {"metal": check.to_json()}
    read = ParityReport.from_json(data)
    assert read.metal == check
    assert "not looked up: linalg.lu" in read.to_text(width=1000)
    without = {name: value for name, value in data.items() if name != "metal"}
    assert ParityReport.from_json(without).metal is None
