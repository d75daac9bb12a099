"""Statements of a body: one expression, and the values it gives."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TypeAlias

from mlxport.converter.graph.ir.printing import alone, statement_text
from mlxport.converter.graph.ir.value import Value, uses_in

Nesting: TypeAlias = "str | tuple[Nesting, ...]"


@dataclass
class Statement:
    """``targets = code``: one or more values computed by one expression.

    Attributes:
        targets: the values it gives; several where the expression gives a tuple.
        code: the expression.
        module: qualified name of the module it calls, None if it calls none.
        nesting: how the tuple is nested, with a string for every value; None where it is flat.
        draws: whether it draws random numbers; such statements stay, in their order.
        stores: the attribute of the model that it sets, in place of a variable; None for others.
        reads: qualified names of the state that it reads, itself or in a module that it calls.
        writes: those of the state that it writes; such statements stay, in their order.
    """

    targets: tuple[Value, ...]
    code: ast.expr
    module: str | None = None
    nesting: Nesting | None = None
    draws: bool = False
    stores: ast.expr | None = None
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return statement_text(self, alone(self.targets, uses_in(self.code)))
