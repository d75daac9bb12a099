"""The benchmarks call what is there: every import, and every attribute of what they import."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
IMPORT = re.compile(r"^(import|from) mlxport\b", re.MULTILINE)


def programs(tree: ast.Module) -> Iterator[ast.Module]:
    """The file itself, and the programs that it holds as text and runs as processes."""
    yield tree
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and IMPORT.search(str(node.value)):
            yield ast.parse(node.value)


def used(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names of ``mlxport`` that a program uses: the module, and what is taken from it."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package = alias.name.partition(".")[0]
                bound[alias.asname or package] = alias.name if alias.asname else package
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield str(node.module), alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in bound:
            yield bound[node.value.id], node.attr


def missing(module: str, name: str) -> bool:
    if not module.startswith("mlxport"):
        return False
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        parent, _, last = module.rpartition(".")
        if missing(parent, last):
            return True
        found = getattr(importlib.import_module(parent), last)
    if not name or hasattr(found, name):
        return False
    try:
        importlib.import_module(f"{module}.{name}")
    except ImportError:
        return True
    return False


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_uses_is_there(path: Path) -> None:
    trees = [*programs(ast.parse(path.read_text()))]
    assert [one for tree in trees for one in used(tree) if missing(*one)] == []


PROGRAMS = {
    "a module": "import mlxport.converter.nothing",
    "a name": "from mlxport.converter.plan.steps import Nothing",
    "a module of a package": "from mlxport.converter.plan import nothing",
    "an attribute": "import mlxport\nmlxport.nothing",
    "an attribute of a name": "from mlxport.converter.plan import steps as s\ns.nothing",
}


@pytest.mark.parametrize("source", PROGRAMS.values(), ids=PROGRAMS)
def test_the_checker_sees_what_is_missing(source: str) -> None:
    assert any(missing(*one) for one in used(ast.parse(source)))


def test_what_is_measured_is_written_after_each_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS[0].parent))
    run = importlib.import_module("run")
    monkeypatch.delitem(sys.modules, "run")
    path = tmp_path / "results.md"
    path.write_text("of before")

    def interrupted() -> Iterator[list[str]]:
        yield ["first"]
        yield ["second", "third"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.write_each(path, ["head"], interrupted())
    assert path.read_text() == "of before"
    partial = tmp_path / "results.md.partial"
    assert partial.read_text().split() == ["head", "first", "second", "third"]
    run.write_each(path, ["head"], iter([["all"]]))
    assert path.read_text().split() == ["head", "all"]
    assert not partial.exists()
