"""The folder of ``debug_dir``: what it holds, when it is written, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.errors import CaptureError, OptionsError, UnsupportedError
from mlxport.converter.graph.debug_folder import DebugFolder, debugging


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)
        self.scaled = Scaled(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scaled(self.conv(x))


class Scatters(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_strided_scatter(x, x, x.shape, x.stride())


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no forward today")


IMAGE = torch.randn(2, 2, 4, 6)


def converted(model: nn.Module, folder: Path | None) -> str:
    return mlxport.convert(model, IMAGE, verify=False, debug_dir=folder).source


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_every_stage_is_written_down_and_nothing_else_changes(tmp_path: Path) -> None:
    source = converted(Net(), tmp_path / "new" / "debug")
    written = contents(tmp_path / "new" / "debug")
    passes = [name for name in written if name.startswith("3-pass-")]
    others = ["1-captured.txt", "2-leaves.txt", "4-classes.txt", "5-model.py"]
    assert sorted([*others, *passes]) == [*written]
    assert passes[0] == "3-pass-1.txt"
    assert written["5-model.py"] == source == converted(Net(), None)
    assert "conv: float32 (2, 3, 4, 6) = self.conv(x)" in written["1-captured.txt"]
    assert "graph of scaled\n" in written["1-captured.txt"]
    leaves = [line.split(maxsplit=2) for line in written["2-leaves.txt"].splitlines()]
    assert leaves[1:] == [
        ["conv", "Conv2d", "a leaf by the rule for Conv2d"],
        ["scaled", "Scaled", "no leaf: Scaled overrides forward of Linear"],
    ]
    assert written["3-pass-1.txt"].startswith("pass 1: 2 transposes a call, kept\n")
    assert "  input x: NHWC x1" in written["3-pass-1.txt"].splitlines()
    assert written["4-classes.txt"].startswith("body of scaled\n  x: float32 (")


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        torch.manual_seed(0)
        converted(Net(), tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_an_earlier_run_wrote_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    for name in ("3-pass-99.txt", "failed.txt", "notes.txt", "4-classes.txt"):
        (tmp_path / name).write_text("old")
    converted(Net(), tmp_path)
    written = contents(tmp_path)
    assert written["notes.txt"] == "old"
    assert written["4-classes.txt"] != "old"
    assert not {"3-pass-99.txt", "failed.txt"} & {*written}


FAILURES = {
    "unsupported": (
        Scatters(),
        UnsupportedError,
        {"1-captured.txt", "2-leaves.txt", "3-pass-1.txt", "4-classes.txt", "failed.txt"},
        "aten.as_strided_scatter.default",
    ),
    "not captured": (Broken(), CaptureError, {"failed.txt"}, "no forward today"),
}


@pytest.mark.parametrize(("model", "error", "names", "told"), FAILURES.values(), ids=FAILURES)
def test_a_failure_leaves_what_was_reached(
    tmp_path: Path, model: nn.Module, error: type[Exception], names: set[str], told: str
) -> None:
    with pytest.raises(error):
        converted(model, tmp_path)
    written = contents(tmp_path)
    assert {*written} == names
    assert told in written["failed.txt"]
    if "3-pass-1.txt" in names:
        assert "without an MLX counterpart\n" in written["3-pass-1.txt"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "debug"
    file.write_text("mine")
    with pytest.raises(OptionsError, match=r"debug_dir=.*not a folder"):
        converted(Net(), file)
    with pytest.raises(OptionsError, match=r"debug_dir=.*no folder to write into"):
        DebugFolder(file / "below")
    assert file.read_text() == "mine"


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with debugging(None) as debug:
        debug.emitted("text")
    assert [*tmp_path.iterdir()] == []


def test_a_checkpoint_conversion_writes_it_outside_of_its_output(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "net.pt")
    options = {"model": Net(), "inputs": ["2,2,4,6"]}
    with pytest.raises(OptionsError, match="in the output folder"):
        api.convert_checkpoint(
            tmp_path / "net.pt", tmp_path / "out", debug_dir=tmp_path / "out" / "debug", **options
        )
    assert not (tmp_path / "out").exists()
    api.convert_checkpoint(
        tmp_path / "net.pt", tmp_path / "out", debug_dir=tmp_path / "debug", **options
    )
    model = (tmp_path / "out" / "model.py").read_text()
    assert (tmp_path / "debug" / "5-model.py").read_text() == model


def test_without_a_model_there_is_nothing_to_write_down(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "net.pt")
    with pytest.raises(OptionsError, match=r"debug_dir="):
        api.convert_checkpoint(tmp_path / "net.pt", tmp_path / "out", debug_dir=tmp_path / "debug")
