"""Lay out emitted Python statements on lines, the way ruff and black do."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from mlxport.converter.graph.ir.code import to_source

WIDTH = 88

# The statements of a method: assignments, loops and a return.
Code: TypeAlias = "tuple[ast.stmt, ...]"


def docstring_text(text: str) -> str:
    """Return text as it may stand in a docstring, whatever it holds: it ends none."""
    escaped = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in escaped
    )


def code_lines(code: Sequence[ast.stmt], indent: int) -> Iterator[str]:
    """Yield the lines of assignments, loops and returns.

    Raises:
        TypeError: one is another kind of statement.
    """
    for item in code:
        if isinstance(item, ast.Assign):
            (target,) = item.targets
            yield from statement(f"{_target(target)} = ", item.value, indent)
        elif isinstance(item, ast.Return) and item.value is not None:
            yield from statement("return ", item.value, indent)
        elif isinstance(item, ast.For):
            yield from statement(f"for {_target(item.target)} in ", item.iter, indent, ":")
            yield from code_lines(item.body, indent + 4)
        else:
            raise TypeError(f"a body has no {type(item).__name__}")


def _target(target: ast.expr) -> str:
    text = ast.unparse(target)
    return text[1:-1] if isinstance(target, ast.Tuple) else text


def statement(prefix: str, tree: ast.expr, indent: int, suffix: str = "") -> list[str]:
    """Return the lines of ``prefix tree suffix``, broken inside brackets where too long."""
    margin = " " * indent
    line = f"{margin}{prefix}{to_source(tree)}{suffix}"
    if len(line) <= WIDTH:
        return [line]
    if isinstance(tree, ast.Call) and (tree.args or tree.keywords):
        items = [("", arg) for arg in tree.args]
        items += [(f"{k.arg}=", k.value) for k in tree.keywords]
        head = f"{prefix}{to_source(tree.func)}("
        return _bracketed(head, items, ")", indent, suffix, joined=True)
    if isinstance(tree, (ast.List, ast.Tuple)) and tree.elts:
        opening, closing = ("[", "]") if isinstance(tree, ast.List) else ("(", ")")
        items = [("", item) for item in tree.elts]
        return _bracketed(prefix + opening, items, closing, indent, suffix, joined=False)
    if isinstance(tree, ast.Dict):
        items = [
            (f"{to_source(key)}: ", value)
            for key, value in zip(tree.keys, tree.values, strict=True)
            if key is not None
        ]
        return _bracketed(prefix + "{", items, "}", indent, suffix, joined=False)
    if isinstance(tree, ast.ListComp):
        return _comprehension(prefix, tree, indent, suffix)
    if isinstance(tree, ast.BinOp):
        return _operation(prefix, tree, indent, suffix)
    return [line]


def _bracketed(
    head: str,
    items: list[tuple[str, ast.expr]],
    tail: str,
    indent: int,
    suffix: str,
    *,
    joined: bool,
) -> list[str]:
    margin, inner = " " * indent, " " * (indent + 4)
    one_line = inner + ", ".join(prefix + to_source(item) for prefix, item in items)
    if joined and len(one_line) <= WIDTH:
        body = [one_line]
    else:
        body = [line for p, item in items for line in statement(p, item, indent + 4, ",")]
    return [f"{margin}{head}", *body, f"{margin}{tail}{suffix}"]


def _comprehension(prefix: str, tree: ast.ListComp, indent: int, suffix: str) -> list[str]:
    margin, inner = " " * indent, " " * (indent + 4)
    body = [inner + to_source(tree)[1:-1]]
    if len(body[0]) > WIDTH:
        loop = to_source(ast.ListComp(ast.Name("_"), tree.generators))[3:-1]
        body = [*statement("", tree.elt, indent + 4), inner + loop]
    return [f"{margin}{prefix}[", *body, f"{margin}]{suffix}"]


def _operation(prefix: str, tree: ast.BinOp, indent: int, suffix: str) -> list[str]:
    """Break a sum or product before its operators, inside parentheses."""
    terms: list[tuple[str, ast.expr]] = []
    level = _level(tree)
    left: ast.expr = tree
    while isinstance(left, ast.BinOp) and _level(left) == level:
        terms.append((_symbol(left), left.right))
        left = left.left
    terms.append(("", left))
    inner = " " * (indent + 4)
    one_line = inner + to_source(tree)
    body = (
        [one_line]
        if len(one_line) <= WIDTH
        else [line for symbol, term in reversed(terms) for line in _term(symbol, term, indent + 4)]
    )
    return [f"{' ' * indent}{prefix}(", *body, f"{' ' * indent}){suffix}"]


def _term(symbol: str, term: ast.expr, indent: int) -> list[str]:
    grouped = isinstance(term, (ast.BinOp, ast.Compare, ast.BoolOp))
    if grouped:
        return (
            [f"{' ' * indent}{symbol}({to_source(term)})"]
            if symbol
            else [f"{' ' * indent}{to_source(term)}"]
        )
    return statement(symbol, term, indent)


def _symbol(tree: ast.BinOp) -> str:
    probe = ast.BinOp(ast.Name("a"), tree.op, ast.Name("b"))
    return ast.unparse(probe)[2:-1]


def _level(tree: ast.BinOp) -> int:
    return 1 if isinstance(tree.op, (ast.Add, ast.Sub)) else 2
