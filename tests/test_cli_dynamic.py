"""Dynamic sizes on the command line, and in the folder it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from mlxport.cli import main
from mlxport.examples.unet3d import UNet3d

MODEL = ("--model", "nets:unet", "--input", "2,1,8,16,8")
NETS = """\
from mlxport.examples.unet3d import UNet3d

def unet():
    return UNet3d(widths=(2, 4, 6))
"""


@pytest.fixture
def folder(tmp_path: Path, write_nets: Callable[[str], object]) -> Path:
    write_nets(NETS)
    torch.manual_seed(0)
    torch.save(UNet3d(widths=(2, 4, 6)).state_dict(), "unet.pt")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["convert", "unet.pt", *MODEL, *arguments])


def test_a_folder_holds_a_reference_for_each_set_of_sizes(folder: Path) -> None:
    result = run("--dynamic", "0,2,3,4", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert "n=2, d=8, h=16, w=8 and n=3" in result.stdout
    assert (folder / "out/reference-2.safetensors").is_file()
    data = json.loads((folder / "out/conversion.json").read_text())
    assert data["dynamic"].keys() == {"n", "d", "h", "w"}
    assert {"d % 4 == 0", "h % 4 == 0", "w % 4 == 0"} <= {*data["conditions"]}
    report = json.loads((folder / "out/parity.json").read_text())
    assert report["sizes"] == {"n": 2, "d": 8, "h": 16, "w": 8}
    others = [(other["sizes"]["n"], other["case"]) for other in report["others"]]
    assert others == [(3, ""), (1, "batch size 1")]
    assert (folder / "out/reference-3.safetensors").is_file()

    again = CliRunner().invoke(main, ["verify", "out"])
    assert again.exit_code == 0, again.stderr
    assert "and n=3" in again.stdout


def test_what_is_baked_in_afterwards_is_found(folder: Path) -> None:
    assert run("--dynamic", "0", "-o", "out").exit_code == 0
    source = folder / "out/model.py"
    model, load, rest = source.read_text().partition("\n\ndef load(")
    lines = model.rstrip().splitlines()
    assert lines[-1].startswith("        return ")
    lines[-1] = f"        return ({lines[-1].removeprefix('        return ')})[:2]"
    source.write_text("\n".join([*lines, "", load.lstrip() + rest]))
    result = CliRunner().invoke(main, ["verify", "out"])
    assert result.exit_code == 3
    assert "n=3" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("axes", "code", "message"),
    [
        ("0,x", 2, "expected axes like 0,2,3,4"),
        ("5", 2, "no example input has more than one element along axis 5"),
        ("1", 2, "along axis 1"),
    ],
)
def test_axes_that_make_no_sense(folder: Path, axes: str, code: int, message: str) -> None:
    result = run("--dynamic", axes, "-o", "out")
    assert result.exit_code == code
    assert message in result.stderr
    assert not (folder / "out").exists()


def test_an_analysis_names_the_sizes(folder: Path) -> None:
    result = run("--dynamic", "0,2,3,4", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "(n, 1, d, h, w)" in result.stdout


def test_a_plan_takes_no_dynamic_sizes(folder: Path) -> None:
    command = ["convert", "unet.pt", "--plan", "out", "--dynamic", "0", "-o", "other"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "--dynamic" in result.stderr
