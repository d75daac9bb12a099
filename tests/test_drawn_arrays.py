"""Arrays that hypothesis draws hold values that differ, or a wrong permutation passes unseen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(file for file in TESTS.rglob("*.py") if "hypothesis.extra" in file.read_text())


def drawn_arrays(source: str) -> list[ast.Call]:
    """Calls of ``hypothesis.extra.numpy.arrays``, which fills with one value unless told not to."""
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("arrays", "hnp.arrays")
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_element_is_drawn(file: Path) -> None:
    for call in drawn_arrays(file.read_text()):
        filled = {k.arg: ast.unparse(k.value) for k in call.keywords}.get("fill")
        assert filled == "st.nothing()", f"{file.name}:{call.lineno}"


def test_there_are_such_calls() -> None:
    assert any(drawn_arrays(file.read_text()) for file in FILES if file != Path(__file__))
