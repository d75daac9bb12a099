"""Write the check of dynamic sizes that a model makes of its inputs before anything else."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping, Sequence

import sympy

from mlxport.converter.graph.ir.body import Body
from mlxport.converter.graph.ir.code import substitute, to_source
from mlxport.converter.graph.ir.context import Unsupported
from mlxport.converter.graph.ir.size_reads import solved
from mlxport.converter.graph.ir.sizes import FUNCTIONS, Size, shape_text, written
from mlxport.converter.graph.source.format import WIDTH

_OPPOSITE: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Lt: ast.GtE(),
    ast.LtE: ast.Gt(),
    ast.Gt: ast.LtE(),
    ast.In: ast.NotIn(),
    ast.GtE: ast.Lt(),
}


def check_lines(conditions: Sequence[str], body: Body) -> list[str]:
    """Return the lines that raise where the sizes of a model's inputs break a condition.

    Args:
        conditions: what must be true, in the names of the sizes.
        body: the body of the model itself.

    Raises:
        Unsupported: a condition cannot be written in Python.
    """
    if not conditions:
        return []
    reads = _reads(body)
    trees = [_read(condition, reads) for condition in conditions]
    test = trees[0] if len(trees) == 1 else ast.BoolOp(ast.Or(), trees)
    lines = [f"        if {to_source(test)}:"]
    if len(lines[0]) > WIDTH:
        first, *others = (f"            {to_source(tree)}" for tree in trees)
        rest = [f"            or {line.strip()}" for line in others]
        lines = ["        if (", first, *rest, "        ):"]
    return [*lines, *_raising(conditions, body)]


def _reads(body: Body) -> dict[str, ast.expr]:
    """Return how the model reads each size off its inputs, by name."""
    formals = {f.variable: ast.Name(f.name) for f in body.parameters}
    symbol = sympy.Symbol("size", integer=True, positive=True)
    reads: dict[str, ast.expr] = {}
    for value in body.inputs:
        array = substitute(value.to_ast(), formals)
        for axis, size in enumerate(value.shape):
            solution = solved(size.key, symbol) if isinstance(size, Size) else None
            if solution is None or not solution[0].is_Symbol:
                continue
            place = ast.Constant(value.order.index(axis))
            code = ast.Subscript(ast.Attribute(array, "shape"), place)
            name = body.sizes.names[str(solution[0])]
            reads.setdefault(name, written(solution[1], {"size": code}))
    return reads


def _read(condition: str, reads: Mapping[str, ast.expr]) -> ast.expr:
    """Return what is true where a condition is not."""
    tree = ast.parse(condition, mode="eval").body
    unknown = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - {*reads, *FUNCTIONS}
    if unknown:
        raise Unsupported(f"that {condition} cannot be checked: {sorted(unknown)} is not known")
    negated: ast.expr = ast.UnaryOp(ast.Not(), tree)
    if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and type(tree.ops[0]) in _OPPOSITE:
        negated = ast.Compare(tree.left, [_OPPOSITE[type(tree.ops[0])]], tree.comparators)
    return substitute(negated, reads)


def _raising(conditions: Sequence[str], body: Body) -> list[str]:
    takes = ", ".join(
        f"{value.name} {shape_text(value.stored_shape, body.sizes.names)}"
        for value in body.inputs
        if any(isinstance(size, Size) for size in value.shape)
    )
    message = f"{takes}: expected {' and '.join(conditions)}"
    parts = textwrap.wrap(message, WIDTH - 20, drop_whitespace=False, break_long_words=False)
    if len(parts) == 1 and len(parts[0]) + 32 <= WIDTH:
        return [f"            raise ValueError({_quoted(parts[0])})"]
    return [
        "            raise ValueError(",
        *(f"                {_quoted(part)}" for part in parts),
        "            )",
    ]


def _quoted(text: str) -> str:
    return to_source(ast.Constant(text))
