"""The three lifetimes of what a handler works with: a pass over the model, a body, a node."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from mlxport.converter.graph.ir.provenance import NodeName, Provenance
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.user_files import UserFile
from mlxport.converter.graph.ir.value import Order, Value, logical_order
from mlxport.converter.plan.record import DrawRecord

# Shape and dtype of every tensor that a node gives.
NodeResults = tuple[tuple[tuple[Any, ...], torch.dtype], ...]


@dataclass
class ModelScope:
    """What one pass over a model gathers from all of its bodies.

    Attributes:
        preferences: provenance -> the axis order to store that array in, chosen before the pass.
        demands: provenance -> the axis orders in which its consumers asked for it.
        imports: name of a function or class -> the file of ``layers/`` it comes from.
        user_files: name of a user's file in ``layers/`` -> the file.
        draws: the random draws, in order.
        above_one: dynamic sizes that were taken for more than one: PyTorch drops axes of one.
    """

    preferences: Mapping[Provenance, Order] = field(default_factory=dict)
    demands: dict[Provenance, list[Order]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    user_files: dict[str, UserFile] = field(default_factory=dict)
    draws: list[DrawRecord] = field(default_factory=list)
    above_one: list[Any] = field(default_factory=list)


@dataclass
class BodyScope:
    """The body being lowered.

    Attributes:
        statements: what it computes so far.
    """

    statements: list[Statement] = field(default_factory=list)

    def compute(
        self,
        code: ast.expr,
        shape: Sequence[Any],
        dtype: torch.dtype,
        order: Order | None = None,
        name: str = "x",
    ) -> Value:
        """Append a statement and return the value it gives.

        Args:
            code: the expression.
            shape: logical shape of the value.
            dtype: its dtype.
            order: its axis order as stored; PyTorch's own if not given.
            name: what to call it where it needs a name of its own.
        """
        shape = tuple(shape)
        value = Value(shape, dtype, logical_order(len(shape)) if order is None else order, name)
        self.statements.append(Statement((value,), code))
        return value

    def expression_of(self, value: Value) -> ast.expr | None:
        """Return the expression that gives a value; None for inputs and the model's arrays."""
        variable = value.variable
        found = (s.code for s in reversed(self.statements) if s.targets[0].variable is variable)
        return next(found, None)


@dataclass(frozen=True)
class NodeScope:
    """The node being lowered.

    Attributes:
        results: what PyTorch says it gives, as ``(shape, dtype)`` of every tensor.
        name: what to call its result where that needs a name of its own.
        fx: the node of the captured graph, for what no value knows: strides, and which results
            are read.
        key: identifies it among all nodes of the model.
        operand: identifies its first operand.
    """

    results: NodeResults = ()
    name: str = "x"
    fx: Node | None = None
    key: NodeName | None = None
    operand: NodeName | None = None
