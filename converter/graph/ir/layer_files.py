"""The layers that go beside an emitted model: copies of just those files it uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files

_OURS = re.compile(r"^(\s*from )mlxport\.layers\.([\w.]+)( import )", re.MULTILINE)


def layer_files(
    names: Iterable[str], user_files: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return path -> text of layer files and of those they import, fit for ``layers/``.

    Args:
        names: modules of ``mlxport.layers`` (``"conv.transpose"``).
        user_files: module name -> text of files by the user that go with them, fit already.
    """
    found = {f"{name}.py": text for name, text in (user_files or {}).items()}
    pending = sorted(set(names))
    while pending:
        family, _, file = pending.pop().partition(".")
        path = f"{family}/{file}.py"
        if path in found:
            continue
        text = _text(path)
        pending += needed_by(text)
        found[path] = beside(text)
        found[f"{family}/__init__.py"] = _text(f"{family}/__init__.py")
    return dict(sorted(found.items()))


def _text(path: str) -> str:
    return files("mlxport.layers").joinpath(path).read_text(encoding="utf-8")


def needed_by(text: str) -> list[str]:
    """Return the files of ``mlxport.layers`` that a source imports from."""
    return [match[2] for match in _OURS.finditer(text)]


def beside(text: str) -> str:
    """Return a source that takes from ``layers``, beside it, what it took from mlxport's."""
    return _OURS.sub(r"\1layers.\2\3", text)
