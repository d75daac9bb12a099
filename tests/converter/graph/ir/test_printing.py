"""Values, statements and bodies as text: names, dtypes, shapes, axis orders, and nothing random."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlxport.converter.graph.capture.dynamic import DynamicSizes
from mlxport.converter.graph.ir.code import call, expression
from mlxport.converter.graph.ir.printing import code_text, numbered, order_text, statement_text
from mlxport.converter.graph.ir.statement import Nesting, Statement
from mlxport.converter.graph.ir.value import Order, Value, channels_last, logical_order

ORDERS: dict[str, tuple[Order, str]] = {
    "PyTorch's": ((0, 1, 2, 3), ""),
    "a number": ((), ""),
    "sequences": ((0, 2, 1), "NLC"),
    "images": ((0, 2, 3, 1), "NHWC"),
    "volumes": ((0, 2, 3, 4, 1), "NDHWC"),
    "another": ((0, 3, 1, 2), "0, 3, 1, 2"),
    "a matrix": ((1, 0), "1, 0"),
}


@pytest.mark.parametrize(("order", "text"), ORDERS.values(), ids=ORDERS)
def test_an_axis_order(order: Order, text: str) -> None:
    assert order_text(order) == text


def value(*shape: int, name: str = "x", order: Order | None = None) -> Value:
    return Value(shape, torch.float32, logical_order(len(shape)) if order is None else order, name)


VALUES: dict[str, tuple[Value, str]] = {
    "in PyTorch's order": (value(2, 3), "x: float32 (2, 3)"),
    "channels last": (
        value(1, 8, 16, 16, 16, order=channels_last(5)),
        "x: float32 (1, 8, 16, 16, 16) [NDHWC]",
    ),
    "one axis": (value(3, name="bias"), "bias: float32 (3,)"),
    "a number": (Value((), torch.int64, (), "n"), "n: int64 ()"),
}


@pytest.mark.parametrize(("printed", "text"), VALUES.values(), ids=VALUES)
def test_a_value(printed: Value, text: str) -> None:
    assert str(printed) == text


def nested(nesting: Nesting | None) -> Statement:
    targets = tuple(value(2, name=name) for name in ("y", "h", "c"))
    return Statement(targets, call("self.lstm", value(2)), nesting=nesting)


STATEMENTS: dict[str, tuple[Statement, str]] = {
    "operands by number": (
        Statement((value(2, name="y"),), expression("a + b * a", {"a": value(2), "b": value(2)})),
        "y: float32 (2,) = %1 + %2 * %1",
    ),
    "several targets": (
        nested(None),
        "y: float32 (2,), h: float32 (2,), c: float32 (2,) = self.lstm(%1)",
    ),
    "a nested tuple": (
        nested(("y", ("h", "c"))),
        "y: float32 (2,), (h: float32 (2,), c: float32 (2,)) = self.lstm(%1)",
    ),
    "a draw": (
        Statement((value(2, name="noise"),), call("mx.random.normal", (2,)), draws=True),
        "noise: float32 (2,) = mx.random.normal((2,))  # draws random numbers",
    ),
}


@pytest.mark.parametrize(("statement", "text"), STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement(statement: Statement, text: str) -> None:
    assert str(statement) == text


def test_values_are_numbered_around_the_names_there_are() -> None:
    given = value(2, name="x1")
    first, second = value(2), value(2)
    statements = [
        Statement((first,), expression("a * 2", {"a": given})),
        Statement((second,), expression("a + b", {"a": given, "b": first})),
    ]
    names = numbered(statements, {given.variable: "x1"})
    assert [statement_text(statement, names) for statement in statements] == [
        "x2: float32 (2,) = x1 * 2",
        "x3: float32 (2,) = x1 + x2",
    ]


def test_a_variable_may_be_printed_as_an_expression() -> None:
    x = value(2)
    code = expression("a + 1", {"a": x})
    assert code_text(code, {x.variable: expression("n // 2", {})}) == "n // 2 + 1"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.block(x)
        return x, torch.nn.functional.interpolate(x, scale_factor=2.0).flatten(1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu()


BODIES = {
    "static": (
        None,
        "block",
        """\
body of block
  x: float32 (2, 2, 4, 6) [NHWC]
  x1: float32 (2, 3, 4, 6) [NHWC] = self.conv(x)
  x2: float32 (2, 3, 4, 6) [NHWC] = nn.relu(x1)
  return x2""",
    ),
    "dynamic": (
        DynamicSizes((0, 2)),
        "block",
        """\
body of block
  x: float32 (n, 2, h, 6) [NHWC]
  x1: float32 (n, 3, h, 6) [NHWC] = self.conv(x)
  x2: float32 (n, 3, h, 6) [NHWC] = nn.relu(x1)
  return x2""",
    ),
}


@pytest.mark.parametrize(("dynamic", "path", "text"), BODIES.values(), ids=BODIES)
def test_a_body(lowered, dynamic, path: str, text: str) -> None:
    model = lowered(Net(), torch.randn(2, 2, 4, 6), dynamic=dynamic)
    assert str(model.bodies[path]) == text


@pytest.mark.parametrize("dynamic", [None, DynamicSizes((0, 2))], ids=["static", "dynamic"])
def test_a_body_prints_the_same_in_every_run_and_no_ids(lowered, dynamic) -> None:
    printed = [
        str(lowered(Net(), torch.randn(2, 2, 4, 6), dynamic=dynamic).bodies[""]) for _ in range(2)
    ]
    assert printed[0] == printed[1]
    assert not set("%$") & set(printed[0])
    assert printed[0].startswith("body of the model\n  x: float32 (")
    assert "return (" in printed[0]
