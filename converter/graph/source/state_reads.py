"""Let a body read and write its state by the attributes it is in, where that is the same.

``count = self.count`` before all that reads ``count`` is ``self.count`` there, as long as nothing
writes it in between; and what was written is read as ``self.count`` again.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace

from mlxport.converter.graph.ir.code import substitute
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Use, Variable, uses_in
from mlxport.converter.graph.source.loops import Effects


def with_attributes(
    statements: Sequence[Statement], result: ast.expr
) -> tuple[list[Statement], ast.expr]:
    """Return the statements of a body, and its result, with state read by its attributes.

    Args:
        statements: of the body; they stay as they are.
        result: the expression that the body returns.
    """
    rewriting = _Rewriting([replace(statement) for statement in statements], result)
    for statement in list(rewriting.statements):
        if statement.stores is not None:
            rewriting.read_again(statement)
    for statement in list(rewriting.statements):
        if statement.stores is None and statement.module is None and statement.reads:
            rewriting.read_directly(statement)
    return rewriting.statements, rewriting.result


class _Rewriting:
    """A body on the way.

    Attributes:
        statements: what it computes.
        result: what it returns.
    """

    def __init__(self, statements: list[Statement], result: ast.expr) -> None:
        self.statements, self.result = statements, result

    def read_again(self, write: Statement) -> None:
        """Write an expression right into the state, and read its value there from then on."""
        if not isinstance(write.code, Use) or write.stores is None:
            return
        variable = write.code.key
        place = self.statements.index(write)
        produced = [s for s in self.statements[:place] if s.targets[0].variable is variable]
        if not produced or len(produced[0].targets) > 1 or produced[0].nesting is not None:
            return
        producer = produced[0]
        between = self.statements[self.statements.index(producer) + 1 : place]
        effects = Effects.of(producer)
        crossed = any(
            effects.conflict(Effects.of(other)) or variable in uses_in(other.code)
            for other in between
        )
        if crossed or (producer.reads and _is_attribute(producer.code)):
            return
        if self._is_written(write.writes, self.statements[place + 1 :]):
            return
        write.code, write.module, write.draws = producer.code, producer.module, producer.draws
        write.reads, write.writes = producer.reads, write.writes | producer.writes
        state = frozenset(write.writes - producer.writes)
        self.statements.remove(producer)
        self._substitute(variable, write.stores, state)

    def read_directly(self, read: Statement) -> None:
        """Read state where it is used, if that is before it is written."""
        if not _is_attribute(read.code) or not read.targets[0].flows:
            return  # a size keeps its name
        variable, place = read.targets[0].variable, self.statements.index(read)
        later = self.statements[place + 1 :]
        users = [i for i, s in enumerate(later) if variable in uses_in(s.code)]
        last = len(later) if variable in uses_in(self.result) else max(users, default=0)
        if self._is_written(read.reads, later[:last]):
            return
        self.statements.remove(read)
        self._substitute(variable, read.code, read.reads)

    def _is_written(self, state: frozenset[str], statements: Sequence[Statement]) -> bool:
        return any(state & statement.writes for statement in statements)

    def _substitute(self, variable: Variable, code: ast.expr, state: frozenset[str]) -> None:
        for statement in self.statements:
            if variable in uses_in(statement.code):
                statement.code = substitute(statement.code, {variable: code})
                statement.reads |= state
        self.result = substitute(self.result, {variable: code})


def _is_attribute(code: ast.expr) -> bool:
    return isinstance(code, (ast.Attribute, ast.Subscript))
