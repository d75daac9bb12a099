"""Gradients are judged wherever they are asked for: in memory, on disk, and once more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mlxport


@pytest.fixture
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv1d(2, 3, 2), torch.nn.ReLU()).eval()


def judged(report: mlxport.ParityReport | None) -> list[str]:
    assert report is not None
    assert report.passed, report.verdict
    return sorted(entry.path for entry in report.gradients)


@pytest.mark.parametrize("gradients", [True, False])
def test_gradients_are_judged_where_they_are_asked_for(
    gradients: bool, net: torch.nn.Module, tmp_path: Path
) -> None:
    x = torch.randn(2, 2, 5)
    # of the input and of both parameters
    wanted = ["", "0", "0"] if gradients else []
    converted = mlxport.convert(net, x, gradients=gradients)
    assert judged(converted.report) == wanted
    assert judged(mlxport.verify(converted.model, net, x, gradients=gradients)) == wanted
    torch.save(net.state_dict(), tmp_path / "net.pt")
    written = mlxport.convert_checkpoint(
        tmp_path / "net.pt", tmp_path / "out", model=net, inputs=[x], gradients=gradients
    )
    assert judged(written.report) == wanted
