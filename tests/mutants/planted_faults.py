"""Small realistic faults, planted in Python source one at a time.

A fault replaces one expression by another: a boundary moved, a comparison turned round, a number
one off, a ``not`` dropped, two arguments swapped, a setting left out. Line numbers stay as they
are above it; text, messages, annotations and what is logged is left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

OTHER_COMPARISON: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OTHER_OPERATOR: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
}
# What such calls are given is for people to read, or for type checkers.
FOR_READERS = {"debug", "info", "warning", "warn", "cast", "TypeVar", "getLogger"}
# Their first two arguments may be swapped without a fault.
SYMMETRIC = {"minimum", "maximum", "min", "max", "logaddexp", "array_equal", "zip"}


@dataclass(frozen=True)
class Fault:
    """One fault: where it is planted, what it replaces, by what."""

    file: str
    line: int
    column: int
    end: tuple[int, int]
    kind: str
    before: str
    after: str

    @property
    def name(self) -> str:
        """What is written of the fault, on one line."""
        return f"{self.file}:{self.line}:{self.column}: {self.kind}: {self.before} -> {self.after}"

    def planted(self, source: str) -> str:
        """The source with the fault. Columns count bytes, as ``ast`` does."""
        lines = source.encode().splitlines(keepends=True)
        last, column = self.end
        head = b"".join(lines[: self.line - 1]) + lines[self.line - 1][: self.column]
        tail = lines[last - 1][column:] + b"".join(lines[last:])
        return (head + self.after.encode() + tail).decode()


def faults_of(source: str, file: str) -> list[Fault]:
    """Every fault there is to plant in a file, in the order of its lines."""
    found = []
    for node in _code(ast.parse(source)):
        for kind, changed in _changes(node):
            before, after = ast.unparse(node), ast.unparse(changed)
            if not isinstance(node, ast.Constant | ast.Call):
                after = f"({after})"
            end = (node.end_lineno or 0, node.end_col_offset or 0)
            fault = Fault(file, node.lineno, node.col_offset, end, kind, before, after)
            if _compiles(fault.planted(source)):
                found.append(fault)
    return sorted(found, key=lambda fault: (fault.line, fault.column, fault.kind, fault.after))


def _compiles(source: str) -> bool:
    try:
        compile(source, "fault", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _code(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that are evaluated, but for annotations and what is for readers."""
    if isinstance(node, ast.expr):
        yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        if isinstance(node, ast.Assert | ast.Raise) and name in ("msg", "exc", "cause"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_for_readers(child):
                yield from _code(child)


def _is_for_readers(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return name in FOR_READERS
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
    return False


def _changes(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Compare(ops=ops):
            for i, comparison in enumerate(ops):
                changed = deepcopy(node)
                changed.ops[i] = OTHER_COMPARISON[type(comparison)]()
                boundary = isinstance(comparison, ast.Lt | ast.LtE | ast.Gt | ast.GtE)
                yield ("boundary" if boundary else "comparison"), changed
        case ast.BoolOp(op=operator, values=values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield "condition", ast.BoolOp(other, values)
            for i in range(len(values)):
                rest = values[:i] + values[i + 1 :]
                yield "term dropped", rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not dropped", operand
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
            yield "sign", operand
        case ast.BinOp(op=operator) if type(operator) in OTHER_OPERATOR and not _is_text(node):
            yield "operator", ast.BinOp(node.left, OTHER_OPERATOR[type(operator)](), node.right)
        case ast.IfExp(body=body, orelse=orelse):
            yield "branches swapped", ast.IfExp(node.test, orelse, body)
        case ast.Constant(value=bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield "one off", ast.Constant(value + 1)
            if value > 0:
                yield "one off", ast.Constant(value - 1)
        case ast.Constant(value=float(value)) if value == value and abs(value) < 1e300:
            yield "constant", ast.Constant(2 * value if value else 1.0)
        case ast.Call():
            yield from _other_arguments(node)


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _other_arguments(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    first = node.args[:2]
    starred = any(isinstance(argument, ast.Starred) for argument in first)
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    alike = len(first) == 2 and ast.dump(first[0]) == ast.dump(first[1])
    if len(first) == 2 and not (starred or alike or name in SYMMETRIC):
        yield (
            "arguments swapped",
            ast.Call(node.func, [*first[::-1], *node.args[2:]], node.keywords),
        )
    for i, keyword in enumerate(node.keywords):
        if keyword.arg:
            rest = node.keywords[:i] + node.keywords[i + 1 :]
            yield "setting left out", ast.Call(node.func, node.args, rest)
