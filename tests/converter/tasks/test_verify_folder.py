"""A folder is run again; what changed in it since, and what it lacks, is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlx.core as mx
import pytest
import torch
from click.testing import CliRunner

from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.errors import ConversionError


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.ConvTranspose2d(2, 3, 2), torch.nn.Linear(5, 4))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    torch.save(net().state_dict(), folder / "net.pt")
    model = net()
    api.convert_checkpoint(folder / "net.pt", folder / "out", model=model, inputs=["1,2,4,4"])
    plan = folder / "out" / "conversion.json"
    api.convert_checkpoint(folder / "net.pt", folder / "by_plan", plan=plan)
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out"


def change(out: Path, name: str, factor: float) -> None:
    file = str(out / "weights.safetensors")
    weights = dict(mx.load(file))
    mx.save_safetensors(file, weights | {name: weights[name] * factor}, {"format": "mlx"})


def test_weights_as_written_are_no_subject(out: Path) -> None:
    report = api.verify_folder(out)
    assert report.passed
    assert report.changed == ""
    assert "weights" not in report.verdict


CHANGES = {
    "wrong": ("layers.0.weight", -1.0, False),
    "within the noise": ("layers.1.bias", 1 + 2**-23, True),
}


@pytest.mark.parametrize(("name", "factor", "passes"), CHANGES.values(), ids=CHANGES)
def test_weights_that_changed_are_named(out: Path, name: str, factor: float, passes: bool) -> None:
    change(out, name, factor)
    report = api.verify_folder(out)
    assert report.passed == passes
    expected = f"The weights are not those that were converted (1 of 4 tensors: differs {name})."
    assert expected in report.verdict
    assert report.to_json()["changed"] in report.verdict
    run = CliRunner().invoke(main, ["verify", str(out)])
    assert run.exit_code == (0 if passes else 3)
    assert expected in " ".join(run.output.split())  # wrapped at the terminal's width


def test_weights_that_do_not_fit_are_named_too(out: Path) -> None:
    mx.save_safetensors(str(out / "weights.safetensors"), {"0.weight": mx.zeros(3)})
    with pytest.raises(
        ConversionError, match=r"cannot load its weights[\s\S]*missing layers.0.weight"
    ):
        api.verify_folder(out)


def test_without_a_reference_it_says_how_to_make_one(made: Path) -> None:
    run = CliRunner().invoke(main, ["verify", str(made / "by_plan")])
    assert run.exit_code == 1
    for said in ("holds no reference", "by a plan make none", "--verify-with PKG.MOD:FACTORY"):
        assert said in run.output
