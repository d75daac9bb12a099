"""The layers that go beside an emitted model: of those files just what it reaches."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files

from mlxport.converter.output.layer_code import PACKAGE, LayerCode


def layer_files(source: str, user_files: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return path -> text of the files of ``layers/`` that a model needs.

    Args:
        source: the text of ``model.py``.
        user_files: module name -> text of files by the user that go with it, fit already.
    """
    users = dict(user_files or {})
    found = {f"{name}.py": text for name, text in users.items()}
    wanted = _reached(_imported((source, *users.values()), users))
    for file, names in wanted.items():
        family = file.partition(".")[0]
        found[f"{file.replace('.', '/')}.py"] = layer_code(file).text(names)
        found[f"{family}/__init__.py"] = _text(f"{family}/__init__.py")
    return dict(sorted(found.items()))


def reached_layers(source: str) -> dict[str, set[str]]:
    """Return file of ``mlxport.layers`` -> the names that a model needs of it, by whatever way.

    A file stands behind those that it imports from.

    Args:
        source: the text of ``model.py``.
    """
    wanted = _reached(_imported((source,), ()))
    ordered: dict[str, set[str]] = {}

    def add(file: str) -> None:
        if file not in ordered:
            for needed in sorted(layer_code(file).needs(wanted[file])):
                add(needed)
            ordered[file] = wanted[file]

    for file in sorted(wanted):
        add(file)
    return ordered


def _imported(
    sources: Iterable[str], users: Collection[str]
) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield what some sources import of our layers: the file, and the names in it."""
    for text in sources:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                file = (node.module or "").removeprefix("layers.")
                names = [alias.name for alias in node.names]
                if "." in file:
                    yield file, names
                elif file not in users:  # a folder, of which whole files are wanted
                    yield from ((f"{file}.{n}", layer_code(f"{file}.{n}").names()) for n in names)


def _reached(wanted: Iterable[tuple[str, Iterable[str]]]) -> dict[str, set[str]]:
    """Return file -> the names that are needed of it, by whatever way."""
    found: dict[str, set[str]] = {}
    pending = [(file, {*names}) for file, names in wanted]
    while pending:
        file, names = pending.pop()
        new = names - found.setdefault(file, set())
        found[file] |= new
        pending += layer_code(file).needs(found[file]).items() if new else ()
    return found


@cache
def layer_code(file: str) -> LayerCode:
    """Return a file of ``mlxport.layers``, as ``conv.transpose``, parsed."""
    return LayerCode.of(file.partition(".")[0], _text(f"{file.replace('.', '/')}.py"))


def _text(path: str) -> str:
    return files(PACKAGE).joinpath(path).read_text(encoding="utf-8")
