"""Find the lines of ``model.py`` that speak of a module: where it is built, and where it is called.

They are found on the syntax tree of the text, so that they are those which a reader will see.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SourceLine:
    """A line of ``model.py``.

    Attributes:
        number: from 1.
        text: without indentation.
    """

    number: int
    text: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.text}"


class SourceLines:
    """The text of ``model.py``, to be asked for lines.

    Args:
        source: the text.
    """

    def __init__(self, source: str) -> None:
        self._lines = source.splitlines()
        tree = ast.parse(source)
        self._classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def of_class(self, name: str) -> SourceLine:
        """Return the line where a class begins."""
        return self._line(self._classes[name].lineno)

    def building(self, owner: str, reference: ast.expr) -> list[SourceLine]:
        """Return the lines of a class's ``__init__`` that assign a module.

        Args:
            owner: the class.
            reference: how the class speaks of the module: ``self.blocks[0]``.
        """
        indices: list[Any] = []
        while isinstance(reference, ast.Subscript) and isinstance(reference.slice, ast.Constant):
            indices.insert(0, reference.slice.value)
            reference = reference.value
        attribute = ast.unparse(reference)
        return [
            self._line(_element(node.value, indices).lineno)
            for node in self._statements(owner, "__init__")
            if isinstance(node, ast.Assign)
            and any(ast.unparse(target) == attribute for target in node.targets)
        ]

    def calling(self, owner: str, reference: ast.expr) -> list[SourceLine]:
        """Return the lines of a class's ``__call__`` that speak of a module, or of its list.

        Args:
            owner: the class.
            reference: how the class speaks of the module: ``self.blocks[0]``.
        """
        nodes = [n for s in self._statements(owner, "__call__") for n in _head(s)]
        for text in _outwards(reference):
            found = sorted({n.lineno for n in nodes if ast.unparse(n) == text})
            if found:
                return [self._line(number) for number in found]
        return []

    def _statements(self, owner: str, method: str) -> Iterator[ast.stmt]:
        for function in self._classes[owner].body:
            if isinstance(function, ast.FunctionDef) and function.name == method:
                yield from (node for node in ast.walk(function) if isinstance(node, ast.stmt))

    def _line(self, number: int) -> SourceLine:
        return SourceLine(number, self._lines[number - 1].strip())


def _element(built: ast.expr, indices: Sequence[Any]) -> ast.expr:
    """Return an element of nested lists and dicts as they are written, or what it is part of."""
    for index in indices:
        if isinstance(built, ast.List) and isinstance(index, int):
            built = built.elts[index]
        elif isinstance(built, ast.Dict):
            pairs = zip(built.keys, built.values, strict=True)
            named = {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}
            built = named[index]
        else:
            break
    return built


def _outwards(reference: ast.expr) -> Iterator[str]:
    """Yield an expression, then what it is an element of: ``self.a[0]``, then ``self.a``."""
    yield ast.unparse(reference)
    while isinstance(reference, ast.Subscript):
        reference = reference.value
        yield ast.unparse(reference)


def _head(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield the expressions of a statement, without those of the statements inside."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.expr):
            yield from (node for node in ast.walk(child) if isinstance(node, ast.expr))
