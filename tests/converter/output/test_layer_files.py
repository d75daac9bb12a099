"""What travels of the layers: all that a model reaches, nothing else, and as tidy as the source."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import mlxport
from mlxport.converter.output.layer_code import LayerCode
from mlxport.converter.output.layer_files import layer_files

ROOT = Path(mlxport.__file__).parent
LAYERS = sorted(path for path in (ROOT / "layers").glob("*/*.py") if path.name != "__init__.py")


def code(path: Path) -> LayerCode:
    return LayerCode.of(path.parent.name, path.read_text())


def write(folder: Path, source: str) -> None:
    for name, text in {"model.py": source, "__init__.py": "", "layers/__init__.py": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name, text in layer_files(source).items():
        (folder / "layers" / name).parent.mkdir(exist_ok=True)
        (folder / "layers" / name).write_text(text)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Package -> name, of a folder for every name at the top of every file, as from a model."""
    above = tmp_path_factory.mktemp("copies")
    found = {}
    for path in LAYERS:
        for name in sorted(code(path).names()):
            package = f"copy_{len(found)}"
            file = f"{path.parent.name}.{path.stem}"
            write(above / package, f"from .layers.{file} import {name}\n\nprint({name})\n")
            found[package] = f"{file}.{name}"
    found[""] = str(above)
    return found


def test_every_name_travels_with_all_it_mentions_and_no_more(copies: dict[str, str]) -> None:
    config = str(ROOT / "pyproject.toml")
    for words in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        command = [sys.executable, "-m", "ruff", *words, "--config", config]
        # D: model.py here is a line
        more = ["--ignore", "D"] if words[0] == "check" else []
        done = subprocess.run(
            [*command, *more, "."], cwd=copies[""], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:]


def test_every_copy_is_imported(copies: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(copies[""])
    try:
        for package, name in copies.items():
            if package:
                model = importlib.import_module(f"{package}.layers.{name.rpartition('.')[0]}")
                assert hasattr(model, name.rpartition(".")[2])
    finally:
        for name in [n for n in sys.modules if n.startswith("copy_")]:
            del sys.modules[name]


SOURCE = '''"""Words."""

import math
from typing import Any

import mlx.core as mx

from mlxport.layers.arrays.sorting import sort, topk
from mlxport.layers.conv.modules import Conv1d, Conv2d

# of one
ONE = math.pi
TWO = 2


@mx.custom_function
def one(x: "Any") -> mx.array:
    return sort(x) * ONE


@one.vjp
def _(primals, cotangent, output):
    return two(cotangent)


def two(x):
    return x


# of nobody
def three(one: int = TWO) -> Conv2d:
    return one


register(two)
'''
REACHED = {
    "what it mentions, and what registers with it": (
        ["one"],
        ["ONE", "def one", "def _", "def two", "register(two)", "# of one", "import Any", "sort\n"],
        ["TWO", "three", "topk", "Conv", "# of nobody"],
    ),
    "a parameter hides a name": (
        ["three"],
        ["TWO = 2", "def three", "import Conv2d\n", "# of nobody"],
        ["ONE", "def one", "sort", "math", "Any"],
    ),
    "a number": (["TWO"], ["TWO"], ["import", "def", "register"]),
}


@pytest.mark.parametrize(("names", "there", "gone"), REACHED.values(), ids=REACHED)
def test_what_is_reached(names: list[str], there: list[str], gone: list[str]) -> None:
    text = LayerCode.of("conv", SOURCE).text(names)
    ast.parse(text)
    assert [one for one in there if one not in text] == []
    assert [one for one in gone if one in text] == []


def test_imports_are_relative_from_the_far_ones_to_the_near() -> None:
    text = LayerCode.of("conv", SOURCE.replace("return sort(x)", "return Conv1d(x, sort)"))
    lines = [line for line in text.text(["one"]).splitlines() if line.startswith("from .")]
    assert lines == ["from ..arrays.sorting import sort", "from .modules import Conv1d"]


def test_layers_look_nothing_up_by_a_computed_name() -> None:
    """By `globals()` or a module's attributes something could be reached that is in no text."""
    for path in LAYERS:
        tree = ast.parse(path.read_text())
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        assert not names & {"globals", "eval", "exec", "__import__"}, path
        inside = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        assert [n for n in inside if n not in tree.body] == [], path
        assert [n for n in inside if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"] == []


def test_a_whole_file_that_the_users_own_imports() -> None:
    users = {"mine": "from .arrays import sorting\n\nsorting.sort\n"}
    written = layer_files("from .layers.mine import x\n", users)
    assert written["mine.py"] == users["mine"]
    assert "def topk" in written["arrays/sorting.py"]
    assert "arrays/__init__.py" in written
