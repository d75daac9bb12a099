"""What docs/extending.md shows is what happens, and its result runs on its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"```python (\S+)\n(.*?)```", PAGE, re.DOTALL))
TO_FOLDER = """
import torch
from mlxport.converter import api
import snake

torch.manual_seed(0)
network = snake.Network()
torch.save(network.state_dict(), "network.pt")
converted = api.convert_checkpoint("network.pt", "out", model="snake:Network", inputs=["1,2,16"])
assert converted.report.passed, converted.report.verdict
"""
ALONE = """
import sys
sys.modules.update(dict.fromkeys(("torch", "mlxport", "snake", "snake_mlx", "numpy")))
import mlx.core as mx
import model
y = model.load()(mx.ones((1, 2, 16)))
assert y.shape == (1, 1, 8)
assert type(model.load().snake).__module__ == "layers.snake_mlx"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_runs(folder: Path) -> None:
    assert set(FILES) == {"snake_mlx.py", "snake.py", "convert.py"}
    assert run("convert.py", cwd=folder).startswith("parity holds")


def test_the_folder_needs_neither_mlxport_nor_the_users_own_package(folder: Path) -> None:
    run("-c", TO_FOLDER, cwd=folder)
    assert (folder / "out/layers/snake_mlx.py").read_text() == FILES["snake_mlx.py"]
    run("-c", ALONE, cwd=folder / "out")
    assert "\nparity holds" in run("-m", "mlxport", "verify", "out", cwd=folder)


def test_the_command_lists_what_was_registered(folder: Path) -> None:
    listed = run("-m", "mlxport.cli", "layers", "--import", "snake", "snake", cwd=folder)
    assert listed.split() == ["Snake", "snake_mlx.Snake"]
    listed = run("-m", "mlxport.cli", "layers", "--import", "snake", "fold_time", cwd=folder)
    assert listed.split()[0] == "mylib.fold_time.default"


def test_what_the_page_names_of_the_context_is_there() -> None:
    from mlxport.converter.graph.ir.handler_context import HandlerContext

    named = set(re.findall(r"\bcx\.(\w+)", PAGE))
    assert named == {name for name in vars(HandlerContext) if not name.startswith("_")}
