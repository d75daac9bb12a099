"""The demo as `make demo` runs it, in a folder of its own and with little training."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlxport.examples import demo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``examples`` is found as in the repository's root."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def run_demo(folder: Path) -> list[str]:
    command = [sys.executable, "examples/demo.py", "--steps", "2"]
    wide = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        command, cwd=folder, env=wide, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_demo_twice(folder: Path) -> None:
    first = run_demo(folder)
    assert f"$ {demo.CONVERT}" in first
    assert f"$ {demo.VERIFY}" in first
    assert any(line.startswith("parity holds") for line in first)
    assert "The worst 5 of 35 layer calls" in first
    assert first[-1].endswith("out/parity.png")
    assert np.asarray(Image.open(folder / "out/parity.png")).std() > 10
    assert f"$ {demo.CONVERT} --overwrite" in run_demo(folder)


def test_readme_shows_the_commands_of_the_demo() -> None:
    readme = (ROOT / "README.md").read_text()
    assert demo.CONVERT in readme
    assert demo.VERIFY in readme


def test_phantoms_hold_both_classes() -> None:
    for seed in range(5):
        volume, classes = demo.phantom(seed, (8, 12, 10))
        assert volume.shape == (1, 1, 8, 12, 10)
        assert set(classes.unique().tolist()) == {0, 1}
