"""The passes over a body once all of it is lowered: dead code elimination, and reads of sizes."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence

from mlxport.converter.graph.ir.body import Body
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import uses_in


def complete(body: Body, result: ast.expr, imported: Collection[str]) -> None:
    """Make a body what is written of it.

    Args:
        body: has its inputs, outputs and all statements that were lowered.
        result: the expression it returns.
        imported: names that ``model.py`` imports so far.

    Raises:
        Unsupported: a size in it has no counterpart in Python.
    """
    live = without_dead_code(body.statements, result)
    body.statements, body.result = body.sizes.written_in(live, result, body.inputs)
    body.imported = frozenset(imported)


def without_dead_code(statements: Sequence[Statement], result: ast.expr) -> list[Statement]:
    """Return the statements that the result needs, those that draw, and those that write state."""
    needed = set(uses_in(result))
    live = []
    for statement in reversed(statements):
        lasting = statement.draws or statement.writes
        if lasting or any(target.variable in needed for target in statement.targets):
            live.append(statement)
            needed.update(uses_in(statement.code))
    return live[::-1]
