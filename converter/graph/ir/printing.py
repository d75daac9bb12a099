"""Print values, statements and bodies of the IR as text, the same in every run.

A value is printed as name, dtype, PyTorch's shape and, where it is stored otherwise, its axis
order: ``x1: float32 (1, 8, 16, 16, 16) [NDHWC]``. A statement adds the expression that gives it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlxport.converter.graph.ir.code import substitute, to_source

if TYPE_CHECKING:
    from mlxport.converter.graph.ir.statement import Nesting, Statement
    from mlxport.converter.graph.ir.value import Order, Value, Variable

Spell = Callable[[Any], str]  # of one size of a shape
Names = Mapping[Any, Any]  # variable, or what else an expression leaves open -> name or expression

# What the axes of a channels-last array are called, by their number.
_CHANNELS_LAST = {3: "NLC", 4: "NHWC", 5: "NDHWC"}


def order_text(order: Order) -> str:
    """Return an axis order as people read it: ``"NDHWC"``, ``"0, 2, 3, 1"``, empty for PyTorch's.

    Args:
        order: ``order[i]`` is the PyTorch axis stored at axis ``i``.
    """
    ndim = len(order)
    if order == tuple(range(ndim)):
        return ""
    last = (0, *range(2, ndim), 1)
    return _CHANNELS_LAST[ndim] if ndim in _CHANNELS_LAST and order == last else _listed(order)


def type_text(value: Value, size: Spell = str) -> str:
    """Return dtype, shape and axis order of a value: ``float32 (1, 8, 16, 16) [NHWC]``.

    Args:
        value: the value.
        size: how to write one size of its shape.
    """
    shape = [size(n) for n in value.shape]
    comma = "," if len(shape) == 1 else ""
    order = order_text(value.order)
    stored = f" [{order}]" if order else ""
    return f"{str(value.dtype).removeprefix('torch.')} ({', '.join(shape)}{comma}){stored}"


def value_text(value: Value, name: str, size: Spell = str) -> str:
    """Return a value with its name and type: ``x: float32 (1, 8, 16, 16)``."""
    return f"{name}: {type_text(value, size)}"


def statement_text(statement: Statement, names: Names, size: Spell = str) -> str:
    """Return a statement in one line: ``x1: float32 (1, 8) = self.linear(x)``.

    Args:
        statement: the statement.
        names: of the variables it gives and reads.
        size: how to write one size of a shape.
    """
    texts = [
        value_text(value, code_text(value.to_ast(), names), size) for value in statement.targets
    ]
    targets = (
        ", ".join(texts)
        if statement.nesting is None
        else _nested(statement.nesting, iter(texts), outermost=True)
    )
    code = code_text(statement.code, names)
    if statement.stores is not None:
        return f"{code_text(statement.stores, names)} = {code}"
    return f"{targets} = {code}{'  # draws random numbers' if statement.draws else ''}"


def code_text(code: ast.expr, names: Names) -> str:
    """Return an expression with names in place of variables."""
    trees = {key: ast.Name(name) if isinstance(name, str) else name for key, name in names.items()}
    return to_source(substitute(code, trees))


def numbered(statements: Iterable[Statement], given: Names) -> dict[Any, Any]:
    """Return names of all variables: ``x1``, ``x2`` … for those that statements assign.

    Args:
        statements: in order.
        given: the names of the variables that are assigned before.
    """
    names, number = dict(given), 0
    taken = {name for name in given.values() if isinstance(name, str)}
    for value in (target for statement in statements for target in statement.targets):
        while value.variable not in names:
            number += 1
            if f"x{number}" not in taken:
                names[value.variable] = f"x{number}"
    return names


def alone(targets: Iterable[Value], read: Iterable[Variable]) -> dict[Variable, str]:
    """Return names for a statement by itself: its targets' own, ``%1``, ``%2`` … for operands.

    Args:
        targets: what the statement gives.
        read: the variables it reads, in order.
    """
    names = {value.variable: value.name for value in targets}
    operands = [variable for variable in dict.fromkeys(read) if variable not in names]
    return names | {variable: f"%{number}" for number, variable in enumerate(operands, 1)}


def _listed(order: Sequence[int]) -> str:
    return ", ".join(map(str, order))


def _nested(nesting: Nesting, texts: Iterator[str], outermost: bool = False) -> str:
    if isinstance(nesting, str):
        return next(texts)
    parts = ", ".join(_nested(part, texts) for part in nesting)
    return parts if outermost else f"({parts})"
