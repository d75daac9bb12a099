"""The command by other words: ``python -m mlxport``, and the flags of mlx-lm."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlxport.cli import main
from mlxport.converter import api


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "mlxport", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mlxport, version ")


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a folder": ("--hf-path here --mlx-path out", {"source": Path("here"), "output": Path("out")}),
    "a repository": ("--hf-path owner/name --mlx-path out", {"source": "hf://owner/name"}),
    "an address": ("--hf-path hf://owner/name -o out", {"source": "hf://owner/name"}),
    "quantized": ("here -o out -q", {"quantize": "bits=4,group_size=64"}),
    "in numbers": (
        "here -o out -q --q-bits 8 --q-group-size 32",
        {"quantize": "bits=8,group_size=32"},
    ),
    "a dtype": ("here --mlx-path out --dtype bfloat16", {"dtype": "bfloat16", "quantize": None}),
}


@pytest.mark.parametrize(("words", "meant"), CASES.values(), ids=CASES)
def test_flags_of_mlx_lm(
    words: str, meant: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def convert_checkpoint(source: Any, output: Any, **options: Any) -> Any:
        asked.update(options, source=source, output=output)
        raise SystemExit(0)

    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    monkeypatch.setattr(api, "convert_checkpoint", convert_checkpoint)
    monkeypatch.setattr(api, "holds_many", lambda sources: False)  # fetches what is on the Hub
    result = CliRunner().invoke(main, ["convert", *words.split()])
    assert result.exit_code == 0, result.stderr
    assert {name: asked[name] for name in meant} == meant


WRONG = {
    "nothing": ("-o out", "Missing argument 'SOURCE'."),
    "two sources": ("here --hf-path there -o out", "SOURCE and --hf-path say the same: give one."),
    "two folders": ("here -o out --mlx-path x", "--output and --mlx-path say the same: give one."),
    "quantized twice": (
        "here -o out -q --quantize bits=8",
        "--quantize and -q say the same: give one.",
    ),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_what_is_said_twice_is_wrong(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["convert", *words.split()])
    assert result.exit_code == 2
    assert message in result.stderr


def test_help_lists_an_option_once() -> None:
    shown = CliRunner().invoke(main, ["convert", "--help"]).stdout
    assert "-q, --q-bits and --q-group-size" in " ".join(shown.split())  # in a sentence
    assert "As mlx-lm:" not in shown
