"""What is done to a body once it is lowered: no dead code, transposes counted, bodies compared."""

from __future__ import annotations

import ast

import pytest
import torch

from mlxport.converter.graph.ir.body import Body
from mlxport.converter.graph.ir.code import expression
from mlxport.converter.graph.ir.scopes import BodyScope
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.lowering.complete_body import complete


def body_of(*lines: str, result: str, draws: tuple[int, ...] = (), inputs: int = 2) -> Body:
    """Return a completed body; lines assign ``v0``, ``v1`` … and read those and ``a``, ``b``."""
    values = {name: Value((2, 3), torch.float32, (0, 1), name) for name in "ab"[:inputs]}
    body = Body("", list(values.values()))
    scope = BodyScope(body.statements)
    for i, line in enumerate(lines):
        values[f"v{i}"] = scope.compute(tree(line, values), (2, 3), torch.float32)
        body.statements[-1].draws = i in draws
    complete(body, tree(result, values), ["norm"])
    return body


def tree(line: str, values: dict[str, Value]) -> ast.expr:
    read = {n.id for n in ast.walk(ast.parse(line)) if isinstance(n, ast.Name)}
    return expression(line, {name: value for name, value in values.items() if name in read})


def test_dead_code_goes_and_draws_stay() -> None:
    body = body_of(
        "mx.sin(a)", "mx.random.normal()", "v0 + b", "mx.cos(v0)", result="v2", draws=(1,)
    )
    assert [ast.unparse(functions(s)) for s in body.statements] == [
        "mx.sin",
        "mx.random.normal",
        "+",
    ]
    assert body.imported == {"norm"}


def functions(statement: Statement) -> ast.expr:
    code = statement.code
    return code.func if isinstance(code, ast.Call) else ast.Name("+")


TRANSPOSES = {
    "none": (["mx.sin(a)"], "v0", 0),
    "statement and result": (["a.transpose(1, 0)"], "v0 + b.transpose(1, 0)", 2),
    "of mx": (["mx.transpose(a, (1, 0)) + 1"], "v0", 1),
    "dead": (["a.transpose(1, 0)"], "b", 0),
    "not called": (["a.transpose"], "v0", 0),
    "a text": (['named("a.transpose(1)", a)'], "v0", 0),
}


@pytest.mark.parametrize(("lines", "result", "count"), TRANSPOSES.values(), ids=TRANSPOSES)
def test_transposes_are_counted_on_the_tree(lines: list[str], result: str, count: int) -> None:
    assert body_of(*lines, result=result).transposes == count


SAME = {
    "the same": ((["mx.sin(a)", "v0 + b"], "v1"), (["mx.sin(a)", "v0 + b"], "v1"), True),
    "after dead code": ((["mx.cos(a)", "mx.sin(a)"], "v1"), (["mx.sin(a)"], "v0"), True),
    "other operands": ((["mx.sin(a)", "v0 + b"], "v1"), (["mx.sin(a)", "v0 + a"], "v1"), False),
    "other numbers": ((["a * 1"], "v0"), (["a * 1.0"], "v0"), False),
    "other results": (
        (["mx.sin(a)", "v0 + b"], "v1"),
        (["mx.sin(a)", "v0 + b"], "(v0, v1)"),
        False,
    ),
    "other arguments": ((["a - b"], "v0"), (["b - a"], "v0"), False),
}


@pytest.mark.parametrize(("one", "other", "same"), SAME.values(), ids=SAME)
def test_bodies_are_compared_by_what_they_compute(one, other, same) -> None:  # type: ignore[no-untyped-def]
    bodies = [body_of(*lines, result=result) for lines, result in (one, other)]
    assert (bodies[0].structure() == bodies[1].structure()) is same


def test_bodies_of_other_parameters_differ() -> None:
    bodies = [body_of("mx.sin(a)", result="v0", inputs=count) for count in (1, 2)]
    assert bodies[0].structure() != bodies[1].structure()
