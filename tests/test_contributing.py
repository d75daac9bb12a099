"""CONTRIBUTING.md names what is there, and its recipes work."""

from __future__ import annotations

import importlib
import re
import runpy
from collections.abc import Callable
from inspect import unwrap
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mlxport.cli import main
from mlxport.converter.graph.ops.registry import OPS
from mlxport.converter.rules.registry import LIBRARY_RULES, RULES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
# Fenced blocks by what they are headed with: a file, "python", or nothing for commands and figures.
BLOCKS = [(b.partition("\n")[0], b.partition("\n")[2]) for b in PAGE.split("```")[1::2]]
CODE = {info.split()[1]: text for info, text in BLOCKS if len(info.split()) == 2}
COMMANDS = "\n".join(text for info, text in BLOCKS if info == "")
QUOTED = re.findall(r"`([^`\n]+)`", "\n".join(PAGE.split("```")[::2]))
# What commands of the page write, and what git ignores.
WRITTEN = {
    "out/",
    "model.py",
    "parity.html",
    "parity.json",
    "metal-report.html",
    "metal-report.json",
    "cpu-report.html",
}


def named_paths() -> list[str]:
    """Files and folders that the page names in backticks, or in commands."""
    shape = re.compile(r"[\w.<>*-]+(/[\w.<>*-]+)*(/|\.(py|md|toml|yml|json|html|txt))")
    quoted = [q for q in QUOTED if shape.fullmatch(q)]
    return sorted({*quoted, *re.findall(r"\b(?:tests|benchmarks)/[\w/.]+", COMMANDS)} - WRITTEN)


def resolved(name: str) -> list[Path]:
    """Where a path is: from the root, or, as a bare file name, beside one named in its line."""
    pattern = re.sub(r"<\w+>", "*", name.rstrip("/"))
    if found := [*ROOT.glob(pattern)]:
        return found
    lines = [line for line in PAGE.splitlines() if f"`{name}`" in line]
    folders = {
        (ROOT / path).parent if "." in path else ROOT / path
        for line in lines
        for path in re.findall(r"`([\w.]+/[\w/.]+)`", line)
    }
    return [path for folder in folders for path in folder.glob(pattern)]


@pytest.mark.parametrize("name", named_paths())
def test_a_file_or_folder_is_there(name: str) -> None:
    assert resolved(name), name


def test_the_checker_finds_names_and_misses_what_is_not_there() -> None:
    assert {"converter/", "tests/conftest.py", "recognise.py"} <= {*named_paths()}
    assert not resolved("converter/nothing.py")
    assert not resolved("nothing.py")


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", PAGE, re.M)))
)
def test_a_make_target_is_there(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_its_commands_and_options_are_there() -> None:
    text = "\n".join([*QUOTED, COMMANDS])
    for line in re.findall(r"(?:^|\n)mlxport ([^\n]+)", text):
        name, *arguments = line.split("#")[0].split()
        options = {option for param in main.commands[name].params for option in param.opts}
        assert {a for a in arguments if re.match(r"--?[a-z]", a)} <= options, line


def test_a_module_or_function_named_in_code_is_there() -> None:
    for name in (q for q in QUOTED if re.fullmatch(r"mlxport\.[a-z_.]+", q)):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


ARCHITECTURE = runpy.run_path(str(ROOT / "tests" / "test_architecture.py"))
WALKS = dict(
    re.findall(r"^### A ([^\n]* way to [^\n]*)\n\n(.*?)(?=\n\n#)", PAGE, re.DOTALL | re.MULTILINE)
)


def levels_of(walk: str) -> list[int]:
    """The levels of the files that a walk names, in its order; 0 is the top."""
    files = [q for q in re.findall(r"`([^`]+)`", walk) if q.endswith(".py") and q not in WRITTEN]
    modules = [path.relative_to(ROOT) for file in files for path in resolved(file)]
    return [ARCHITECTURE["place_of"](ARCHITECTURE["module_name"](m))[0] for m in modules]


def test_the_map_shows_every_place_of_the_architecture() -> None:
    figure = next(text for _, text in BLOCKS if text.startswith("examples "))
    words = re.findall(r"\w+", figure)
    places = [place for level in ARCHITECTURE["LEVELS"] for place in level]
    assert [place for place in places if place.rpartition(".")[2] not in words] == []


def test_there_are_three_walks() -> None:
    assert len(WALKS) == 3


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_a_walk_is_short_and_comes_back_twice_at_most(walk: str) -> None:
    levels = levels_of(walk)
    assert len(walk.splitlines()) <= 10
    assert len(levels) > 8
    assert sum(after < before for before, after in pairwise(levels)) <= 2, levels


@pytest.mark.parametrize("file", CODE)
def test_the_code_of_a_recipe_stands_in_its_file(file: str) -> None:
    assert CODE[file] in (ROOT / file).read_text()


def run_recipe(folder: str, name: str, registry: dict, monkeypatch: pytest.MonkeyPatch) -> object:
    """Take an entry out of a registry, follow the recipe, and return the new entry."""
    ((file, code),) = ((f, c) for f, c in CODE.items() if str(Path(f).parent) == folder)
    key = next(key for key in registry if name in (key, getattr(key, "__name__", None)))
    monkeypatch.delitem(registry, key)
    module = importlib.import_module("mlxport." + file.removesuffix(".py").replace("/", "."))
    exec(compile(code, file, "exec"), {**vars(module)})
    return registry[key]


@pytest.fixture
def assert_layer_parity() -> Callable[..., None]:
    conftest = runpy.run_path(str(ROOT / "tests" / "converter" / "rules" / "conftest.py"))
    return conftest["_assert_layer_parity"]


def test_the_recipe_of_an_op_gives_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    import op_parity

    op = run_recipe("converter/graph/ops", "aten.pixel_shuffle.default", OPS, monkeypatch)
    assert op.handler.__code__.co_filename == "converter/graph/ops/shuffle.py"
    op_parity.assert_op_parity(lambda x: F.pixel_shuffle(x, 2), torch.randn(2, 8, 3, 4))


def test_the_recipe_of_a_rule_gives_a_layer(
    monkeypatch: pytest.MonkeyPatch, assert_layer_parity: Callable[..., None]
) -> None:
    rule = run_recipe("converter/rules", "PixelShuffle", RULES, monkeypatch)
    assert unwrap(rule.build).__code__.co_filename == "converter/rules/shape.py"
    assert_layer_parity(torch.nn.PixelShuffle(2), torch.randn(2, 12, 3, 5), gradients=True)


def test_the_recipe_of_a_librarys_rule_gives_a_layer(
    monkeypatch: pytest.MonkeyPatch, assert_layer_parity: Callable[..., None]
) -> None:
    class LayerNorm2d(torch.nn.LayerNorm):
        """timm's, found by its name."""

        __module__, __qualname__ = "timm.layers.norm", "LayerNorm2d"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    name = "timm.layers.norm.LayerNorm2d"
    rule = run_recipe("converter/rules/libraries", name, LIBRARY_RULES, monkeypatch)
    assert unwrap(rule.build).__code__.co_filename == "converter/rules/libraries/timm.py"
    assert_layer_parity(LayerNorm2d(6), torch.randn(2, 6, 4, 5), gradients=True)
