"""A pytest plugin that writes down which functions of the package each test calls.

``MUTANTS_CALLS`` names the file it writes: test -> its seconds, and the functions as
``file:qualified name``. Each function of the package is compiled with a first statement that
notes it: a trace function would be called of all that torch calls, too. What a test runs in
another process is not seen, and a test that fails without a fault is left out.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

# the copy of the tree that the tests are run in
ROOT = os.environ.get("MUTANTS_TREE", "") + os.sep
INSIDE = tuple(ROOT + place for place in ("converter" + os.sep, "layers" + os.sep, "cli.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

calls: dict[str, dict[str, object]] = {}
called: set[str] = set()
of_fixtures: dict[Path, set[str]] = defaultdict(set)
failed: set[str] = set()


def functions_of(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """The functions below a node, each after the one around it, by qualified names."""
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, Function | ast.ClassDef):
            name = prefix + getattr(child, "name", "<lambda>")
            inner = f"{name}."
            if isinstance(child, Function):
                yield name, child
        yield from functions_of(child, inner)


def noting(source: str | bytes, file: str) -> ast.Module:
    """A file of the package whose functions note that they are called."""
    tree = ast.parse(source)
    for name, function in [*functions_of(tree)]:
        note = ast.Call(ast.Name("_note_call", ast.Load()), [ast.Constant(f"{file}:{name}")], [])
        if isinstance(function, ast.Lambda):
            pair = ast.Tuple([note, function.body], ast.Load())
            function.body = ast.Subscript(pair, ast.Constant(1), ast.Load())
        else:
            after_text = int(ast.get_docstring(function, clean=False) is not None)
            function.body.insert(after_text, ast.Expr(note))
        ast.copy_location(note, function)
    return ast.fix_missing_locations(tree)


if os.environ.get("MUTANTS_TREE"):
    builtins._note_call = called.add  # type: ignore[attr-defined]
    compiled = SourceFileLoader.source_to_code

    def _source_to_code(loader: object, data: bytes, path: str, **options: int) -> CodeType:
        if not str(path).startswith(INSIDE):
            return compiled(loader, data, path, **options)  # type: ignore[arg-type, no-any-return]
        tree = noting(data, str(path).removeprefix(ROOT))
        return compile(tree, path, "exec", dont_inherit=True)

    SourceFileLoader.source_to_code = _source_to_code  # type: ignore[assignment, method-assign]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Note the calls of a test, and write the table after the last of its file."""
    called.clear()
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        calls[item.nodeid] = {
            "seconds": time.perf_counter() - began,
            "calls": sorted(called),
            "file": str(item.path),
        }
        if nextitem is None or nextitem.path != item.path:
            _write()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Note what fixtures call: every test of the file may depend on it."""
    yield
    of_fixtures[item.path] |= called


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what cannot tell of a fault."""
    if report.failed:
        failed.add(report.nodeid)


def _write() -> None:
    table = {}
    for test, entry in calls.items():
        if test not in failed:
            shared = of_fixtures[Path(str(entry["file"]))]
            functions = sorted({*entry["calls"], *shared})  # type: ignore[misc]
            table[test] = {"seconds": entry["seconds"], "calls": functions}
    Path(os.environ["MUTANTS_CALLS"]).write_text(json.dumps(table))
