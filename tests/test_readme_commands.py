"""Every command of the README parses, and those on a checkpoint run from an empty folder."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import mlxport
from mlxport.cli import main
from mlxport.examples.unet3d import UNet3d

ROOT = Path(__file__).parents[1]
_FENCED = (ROOT / "README.md").read_text().split("```")[1::2]
COMMANDS = [
    shlex.split(line.removeprefix("$ "), comments=True)[1:]
    for block in _FENCED
    if block.startswith("\n")  # of no language
    for line in block.splitlines()
    if re.match(r"(\$ )?mlxport ", line)
]
# as the README writes what is left to the reader
LEFT_OUT = "…"


def line_of(words: list[str]) -> str:
    return " ".join(["mlxport", *words])


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("words", COMMANDS, ids=line_of)
def test_it_parses(words: list[str]) -> None:
    name, *arguments = (word for word in words if word != LEFT_OUT)
    # an option before the dots has its value in them
    if words[-1] != LEFT_OUT and LEFT_OUT in words:
        place = words.index(LEFT_OUT)
        if words[place - 1].startswith("-"):
            arguments.insert(place - 1, "1,1,8,8,8")
    context = main.commands[name].make_context(name, arguments)
    assert isinstance(context, click.Context)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with the checkpoint, the class and the port that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples/unet3d.py", tmp_path / "examples")
    torch.save(UNet3d().state_dict(), tmp_path / "unet3d.pt")
    torch.save(UNet3d().state_dict(), tmp_path / "other.pt")
    shutil.copy(ROOT / "benchmarks/unet_by_hand.py", tmp_path / "port.py")
    mine = ("port", "examples", "examples.unet3d")
    yield tmp_path
    for name in mine:
        sys.modules.pop(name, None)


# The first of the README's commands that begin so, one after the other.
JOURNEY = (
    "convert unet3d.pt --model",
    "inspect unet3d.pt",
    "verify out/",
    "verify out/ --weights",
    "convert other.pt --plan out/conversion.json",
    "convert unet3d.pt --target",
    "restore out/ -o",
    "restore out/ --weights",
    "export out/",
    "publish out/",
)


def test_a_checkpoint_goes_all_the_way(folder: Path) -> None:
    for start in JOURNEY:
        if start == "restore out/ --weights":
            mlxport.load("out").save_weights("tuned.safetensors")
        words = next(words for words in COMMANDS if f"{' '.join(words)} ".startswith(f"{start} "))
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, f"{line_of(words)}\n{result.output}"
        if "--model" in words:
            assert "\nparity holds: 1 output and " in result.stdout
    theirs = torch.load("unet3d.pt")
    for back in (load_file("unet3d.safetensors"), torch.load("tuned.pt")):
        assert back.keys() == theirs.keys()
        assert all(torch.equal(back[key], theirs[key]) for key in theirs)
    assert {path.name for path in folder.iterdir()} > {"out", "two", "weights", "unet3d.mlxfn"}
