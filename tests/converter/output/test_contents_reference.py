"""How much of a reference a folder keeps, and that every layer is judged by what is left."""

from pathlib import Path

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.errors import OptionsError
from mlxport.converter.parity.verdict.reference_file import load_reference


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    torch.save(net.state_dict(), folder / "net.pt")
    for extent in ("bounded", "full"):
        mlxport.convert_checkpoint(
            folder / "net.pt",
            folder / extent,
            model=net,
            inputs=["1,1,128,128"],
            reference=extent,
        )
    return folder


def test_a_bounded_reference_judges_every_layer(folder: Path) -> None:
    bounded, full = (folder / name / "reference.safetensors" for name in ("bounded", "full"))
    assert bounded.stat().st_size < 300_000 < full.stat().st_size
    assert all(call.outputs[0].reference.size > 200 for call in load_reference(bounded).calls)
    for name in ("bounded", "full"):
        report = api.verify_folder(folder / name)
        assert report.passed
        assert {e.path for e in report.entries if e.verdicts} >= {"0", "1", "2"}


def test_a_bounded_reference_finds_a_fault_in_a_layer(folder: Path) -> None:
    file = folder / "bounded/model.py"
    file.write_text(file.read_text().replace("return", "x = x * 1.0001\n        return", 1))
    assert not api.verify_folder(folder / "bounded").passed


def test_there_are_no_other_extents(folder: Path) -> None:
    with pytest.raises(OptionsError, match="expected one of 'bounded', 'full', got str 'some'"):
        mlxport.convert_checkpoint(
            folder / "net.pt", folder / "x", plan=folder / "full", reference="some"
        )
