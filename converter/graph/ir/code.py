"""Expressions of the emitted source, as Python syntax trees.

Handlers write what they mean as a line of Python with names for the operands; the operands are put
in as syntax trees, so that precedence, quoting and nesting are Python's own business and no text
from a checkpoint ever reaches the source unquoted.
"""

from __future__ import annotations

import ast
import cmath
import math
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Operand(Protocol):
    """Anything that knows how it is written in source."""

    def to_ast(self) -> ast.expr:
        """Return the expression that stands for it."""
        ...


class Hole(ast.expr):
    """Stands in an expression for what is written later: an array (its variable) or a size.

    Attributes:
        key: what it stands for, hashable; `substitute` finds what to put here by it.
    """

    _fields: ClassVar[tuple[str, ...]] = ("key",)
    key: Hashable

    def __init__(self, key: Hashable) -> None:
        self.key = key


class Omit:
    """Stands for a keyword argument that is left out because it has its default value."""


OMIT = Omit()


def expression(template: str, operands: Mapping[str, Any]) -> ast.expr:
    """Parse a line of Python and put the operands in place of the names that bear theirs.

    Keyword arguments whose operand is ``OMIT`` are left out.

    Raises:
        KeyError: an operand is not named in the template.
    """
    tree = _parse(template)
    unknown = set(operands) - {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    if unknown:
        raise KeyError(f"template {template!r} does not name {sorted(unknown)}")
    return substitute(tree, operands)


def call(function: str, *args: Any, **kwargs: Any) -> ast.Call:
    """Return a call of a dotted name; keyword arguments that are ``OMIT`` are left out."""
    return ast.Call(
        _parse(function),
        [to_ast(arg) for arg in args],
        [ast.keyword(k, to_ast(v)) for k, v in kwargs.items() if v is not OMIT],
    )


def to_ast(value: Any) -> ast.expr:
    """Return the expression of an operand or of a plain Python literal.

    Raises:
        TypeError: there is no way to write such a value in source.
    """
    if isinstance(value, ast.expr):
        return value
    if isinstance(value, Operand):
        return value.to_ast()
    if isinstance(value, (list, tuple)):
        items = [to_ast(item) for item in value]
        return ast.List(items) if isinstance(value, list) else ast.Tuple(items)
    if isinstance(value, slice):
        parts = [None if p is None else to_ast(p) for p in (value.start, value.stop, value.step)]
        return ast.Slice(*parts)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value)
    if isinstance(value, complex) and cmath.isfinite(value):
        return ast.Constant(value)
    if value is None or value is Ellipsis or isinstance(value, (bool, str)):
        return ast.Constant(value)
    raise TypeError(f"cannot write {value!r} of type {type(value).__name__} into source")


def substitute(tree: ast.expr, operands: Mapping[Any, Any]) -> ast.expr:
    """Return a copy of an expression with operands in place of some names and holes.

    Args:
        tree: the expression.
        operands: name, or key of a hole -> what to put there.
    """
    copied: ast.expr = _fill(tree, operands)
    return copied


def to_source(tree: ast.expr) -> str:
    """Return the expression on one line, quoted the way formatters leave alone."""
    return ast.unparse(_Spelling().visit(substitute(tree, {})))


def _number(value: float) -> ast.expr:
    if not math.isfinite(value):
        name: ast.expr = ast.Attribute(ast.Name("mx"), "nan" if math.isnan(value) else "inf")
        return ast.UnaryOp(ast.USub(), name) if value < 0 else name
    negative = math.copysign(1.0, value) < 0
    constant = ast.Constant(abs(value))
    return ast.UnaryOp(ast.USub(), constant) if negative else constant


def _quoted(text: str) -> str:
    """Return a string literal in ASCII, in double quotes."""
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'


@cache
def _parse(source: str) -> ast.expr:
    return ast.parse(source, mode="eval").body


def _fill(tree: Any, operands: Mapping[Any, Any]) -> Any:
    """Copy a tree, with operands in place of their names (templates are shared: never mutate)."""
    if isinstance(tree, ast.Name):
        return to_ast(operands[tree.id]) if tree.id in operands else ast.Name(tree.id)
    if isinstance(tree, Hole) and tree.key in operands:
        return to_ast(operands[tree.key])
    if isinstance(tree, list):
        return [_fill(item, operands) for item in tree if not _omitted(item, operands)]
    if isinstance(tree, ast.AST):
        return type(tree)(**{name: _fill(v, operands) for name, v in ast.iter_fields(tree)})
    return tree


def _omitted(item: Any, operands: Mapping[Any, Any]) -> bool:
    return (
        isinstance(item, ast.keyword)
        and isinstance(item.value, ast.Name)
        and operands.get(item.value.id) is OMIT
    )


class _Spelling(ast.NodeTransformer):
    """Spell constants as formatters do: double quotes, and 1e-5 for 1e-05."""

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, Hole):
            return ast.Name(str(node.key))
        return super().visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str):
            return ast.Name(_quoted(node.value))
        if isinstance(node.value, float):
            mantissa, _, exponent = repr(node.value).partition("e")
            return ast.Name(f"{mantissa}e{int(exponent)}" if exponent else mantissa)
        return node
