"""MLX classes and functions that the user wrote: their file is copied beside the emitted model.

A converted model runs where mlx alone is, so such a file may need nothing but mlx, the standard
library and the files of ``mlxport.layers``, which travel too.
"""

from __future__ import annotations

import ast
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from mlxport.converter.errors import ConversionError

LAYERS = "mlxport.layers"
_OURS = re.compile(r"^(\s*from )mlxport\.layers\.([\w.]+)( import )", re.MULTILINE)
# Names that the emitted source defines: a class or function of that name would hide them.
_TAKEN = frozenset({"Model", "Path", "load", "mx", "nn"})


class NotPortable(ConversionError):
    """A class or function cannot travel with a converted model; the message says why."""


@dataclass(frozen=True)
class UserFile:
    """A file that the user wrote, fit for ``layers/``.

    Attributes:
        name: what it is called there, without ``.py``.
        text: its text; what it took of ``mlxport.layers`` it takes from ``layers``, beside it.
        layers: the files of ``mlxport.layers`` it needs.
    """

    name: str
    text: str
    layers: tuple[str, ...]


def is_mlx(target: Any) -> bool:
    """Whether a class or function is one of MLX's."""
    return str(getattr(target, "__module__", "")).partition(".")[0] == "mlx"


def is_ours(target: Any) -> bool:
    """Whether a class or function is one of ``mlxport.layers``."""
    return str(getattr(target, "__module__", "")).startswith(f"{LAYERS}.")


def user_file_of(target: Any) -> UserFile:
    """Return the file of a class or function that the user wrote, fit to travel.

    Raises:
        NotPortable: it cannot; every reason is listed.
    """
    name = getattr(target, "__name__", repr(target))
    module = sys.modules.get(getattr(target, "__module__", None) or "")
    path = Path(getattr(module, "__file__", None) or "")
    if module is None or path.suffix != ".py" or not path.is_file():
        raise NotPortable(
            f"{name} stands in no .py file that could travel with the model: put it in one"
        )
    if getattr(module, name, None) is not target:
        raise NotPortable(f"{path.name} has no {name} at its top level: define it there")
    if name in _TAKEN:
        raise NotPortable(f"{name} is a name that model.py itself uses: choose another")
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    problems = list(_problems(tree))
    if problems:
        raise NotPortable(
            f"{path.name}, where {name} is defined, travels with the model and may import only "
            f"mlx, the standard library and {LAYERS}; it imports {', '.join(problems)}. Put {name} "
            "in a file of its own"
        )
    text = _from_files(text, tree)
    layers = tuple(sorted({*_needed_by(text)}))
    return UserFile(_file_name(module, path), _beside(text), layers)


def _problems(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if not _known(alias.name):
                    yield f"{alias.name} (line {node.lineno})"
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            ours = node.module is not None and f"{node.module}.".startswith(f"{LAYERS}.")
            if node.level or not (_known(name) or ours):
                yield f"{name} (line {node.lineno})"


def _known(name: str) -> bool:
    package = name.partition(".")[0]
    return package == "mlx" or package in sys.stdlib_module_names


def _from_files(text: str, tree: ast.Module) -> str:
    """Write ``from mlxport.layers import Name`` as imports from the files that define the names."""
    lines = text.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == LAYERS and node.end_lineno:
            package = import_module(LAYERS)
            indent = " " * node.col_offset
            written = [_import_of(alias, getattr(package, alias.name)) for alias in node.names]
            lines[node.lineno - 1] = "".join(f"{indent}{line}\n" for line in written)
            lines[node.lineno : node.end_lineno] = [""] * (node.end_lineno - node.lineno)
    return "".join(lines)


def _import_of(alias: ast.alias, found: Any) -> str:
    bound = f" as {alias.asname}" if alias.asname else ""
    if isinstance(found, ModuleType):
        raise NotPortable(
            f"from {LAYERS} import {alias.name} names a file: import what is needed of it, by "
            f"from {LAYERS}.{alias.name} import …"
        )
    return f"from {found.__module__} import {alias.name}{bound}"


def _file_name(module: ModuleType, path: Path) -> str:
    """Return what to call the copy: as the file is called, unless one of ours is called so.

    Names that differ in case alone are one: some file systems have no others. Python reads a name
    in a source as NFKC, so that is what the file has to be called.
    """
    taken = {Path(one.name).stem.casefold() for one in files(LAYERS).iterdir()}
    dotted = module.__name__.replace(".", "_")
    for spelt in (path.stem, dotted, f"{dotted}_own"):
        name = unicodedata.normalize("NFKC", spelt)
        if name.casefold() not in taken and name.isidentifier():
            return name
    raise NotPortable(f"{path.name} is no name of a Python module: rename it")


def _needed_by(text: str) -> list[str]:
    """Return the files of ``mlxport.layers`` that a source imports from."""
    return [match[2] for match in _OURS.finditer(text)]


def _beside(text: str) -> str:
    """Return a source, at the top of ``layers/``, that takes from beside it what was mlxport's."""
    return _OURS.sub(r"\1.\2\3", text)
