"""Imports of ``mlxport.layers`` as they are written in copies that lie beside a model."""

from __future__ import annotations

import re

_OURS = re.compile(r"^(\s*from )mlxport\.layers\.([\w.]+)( import )", re.MULTILINE)


def needed_by(text: str) -> list[str]:
    """Return the files of ``mlxport.layers`` that a source imports from."""
    return [match[2] for match in _OURS.finditer(text)]


def beside(text: str) -> str:
    """Return a source, at the top of ``layers/``, that takes from beside it what was mlxport's."""
    return _OURS.sub(r"\1.\2\3", text)
