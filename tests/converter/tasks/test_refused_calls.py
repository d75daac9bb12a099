"""A device that refuses a call of the model: the folder is written, with the evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import mlxport
from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.errors import DeviceError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.first(x)) + torch.sort(x).values


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sorting: what a GPU's stream says of a kernel that it lacks."""

    def argsort(*_: Any, **__: Any) -> Any:
        raise ValueError("[Sort::eval_gpu] Does not support float32")

    monkeypatch.setattr(mx, "argsort", argsort)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.save(Net().state_dict(), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def line_of(folder: Path) -> str:
    lines = (folder / "model.py").read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if " = sort(" in line or "sort(x)" in line)
    return f"at line {number} of model.py"


@pytest.mark.usefixtures("refused")
def test_a_conversion_leaves_its_folder(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = api.convert_checkpoint(source, out, model=Net(), inputs=["2,4"], gradients=True)
    assert not result.report.passed
    assert "[Sort::eval_gpu] Does not support float32" in result.report.verdict
    assert line_of(out) in result.report.verdict
    stored = json.loads((out / "parity.json").read_text())
    assert not stored["passed"]
    assert stored["verdict"] == result.report.verdict
    assert any("gradients not judged" in note for note in stored["notes"])


@pytest.mark.usefixtures("refused")
def test_in_memory_too() -> None:
    report = mlxport.convert(Net(), torch.randn(2, 4)).report
    assert "Does not support float32" in report.verdict


def test_verifying_writes_its_report(
    source: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out, report = tmp_path / "out", tmp_path / "parity.json"
    assert api.convert_checkpoint(source, out, model=Net(), inputs=["2,4"]).report.passed
    request.getfixturevalue("refused")
    run = CliRunner().invoke(main, ["verify", str(out), "-o", str(report)])
    assert run.exit_code == 3
    assert line_of(out) in run.output
    assert "Does not support float32" in json.loads(report.read_text())["verdict"]


def test_the_layer_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def layer_norm(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Unable to load kernel")

    monkeypatch.setattr(mx.fast, "layer_norm", layer_norm)
    result = api.convert_checkpoint(source, tmp_path / "out", model=Net(), inputs=["2,4"])
    assert "in norm at line" in result.report.verdict
    assert "after the layers" not in result.report.verdict, "nobody knows that"


@pytest.mark.parametrize("device", ["metal", "cuda"])
def test_a_device_that_is_not_there(
    device: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getattr(mx, device), "is_available", lambda: False)
    with pytest.raises(DeviceError):
        mlxport.convert(Net(), torch.randn(2, 4), device=device)
    with pytest.raises(DeviceError):
        api.convert_checkpoint(source, tmp_path / "out", model=Net(), inputs=["2,4"], device=device)
    assert not (tmp_path / "out").exists()
