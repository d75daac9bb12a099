"""Commands run in an empty folder, and libraries that are hidden."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import import_torchvision  # noqa: F401
import pytest
import torch
from click.testing import CliRunner, Result

from mlxport.cli import main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the libraries import and call
        yield


@pytest.fixture
def run() -> Callable[[str], Result]:
    """Run a command line as it stands in the README."""

    def invoke(command: str) -> Result:
        program, *arguments = command.split()
        assert program == "mlxport"
        return CliRunner().invoke(main, arguments)

    return invoke


@pytest.fixture
def readme() -> Callable[[str], str]:
    """Return the first command of the README that begins so."""
    text = (Path(__file__).parents[3] / "README.md").read_text()
    return lambda start: next(line for line in text.splitlines() if line.startswith(start))


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a library be one that is not installed."""
    return lambda package: monkeypatch.setitem(sys.modules, package, None)
