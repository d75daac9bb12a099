"""Transposes: joined with one another, shared, and not made where only axes of length one move.

Calls of functions of ``mlxport.layers``: imported once, by the file that defines them.
"""

from __future__ import annotations

import ast
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlxport.converter.graph.ir.code import substitute, to_source
from mlxport.converter.graph.ir.context import Context, Unsupported
from mlxport.converter.graph.ir.handler_context import HandlerContext
from mlxport.converter.graph.ir.scopes import NodeScope
from mlxport.converter.graph.ir.transposes import is_available_in
from mlxport.converter.graph.ir.value import Order, Value, logical_order, uses_in
from mlxport.converter.graph.ops.axes import expand_dims
from mlxport.converter.graph.ops.shape import permute
from mlxport.layers.arrays import reduction, sorting

SHAPE = (2, 3, 4, 5)


def value(shape: tuple[int, ...], order: Order | None = None) -> Value:
    return Value(shape, torch.float32, logical_order(len(shape)) if order is None else order)


def giving(*results: Any) -> Context:
    """Return the context of a node that gives these shapes and dtypes."""
    return Context(node=NodeScope(results))


def evaluated(cx: Context, x: Value, array: mx.array, wanted: Value) -> mx.array:
    """Run the statements and return an array of the emitted code."""
    space: dict[str, Any] = {"mx": mx}
    names = {x.variable: ast.Name("x")}
    space["x"] = array
    for i, statement in enumerate(cx.statements):
        (target,) = statement.targets
        space[f"x{i}"] = eval(to_source(substitute(statement.code, names)), space)
        names[target.variable] = ast.Name(f"x{i}")
    result: mx.array = space[names[wanted.variable].id]
    return result


orders = st.permutations(range(4)).map(tuple)


@given(orders, orders, orders, orders)
def test_transposes_in_a_row_are_one(stored: Order, first: Order, dims: Order, last: Order) -> None:
    cx = giving((tuple(SHAPE[d] for d in dims), torch.float32))
    x = value(SHAPE, stored)
    logical = mx.random.normal(SHAPE)
    y = cx.arrange(x, first)
    z = cx.arrange(permute(cx, y, dims), last)
    got = evaluated(cx, x, logical.transpose(stored), z)
    assert np.array_equal(got, logical.transpose(dims).transpose(last))
    assert all(uses_in(statement.code) == [x.variable] for statement in cx.statements)
    assert all(".transpose(" in to_source(statement.code) for statement in cx.statements)


def test_the_same_transpose_under_other_names_of_the_axes_is_made_once() -> None:
    cx = giving(((2, 4, 5, 3), torch.float32))
    x = value(SHAPE)
    y = cx.arrange(x, (0, 2, 3, 1))
    z = cx.logical(permute(cx, x, (0, 2, 3, 1)))
    assert (y.variable, z.shape, z.order) == (z.variable, (2, 4, 5, 3), (0, 1, 2, 3))
    assert len(cx.statements) == 1
    assert is_available_in(x, (0, 2, 3, 1))
    assert is_available_in(y, (0, 1, 2, 3))
    assert not is_available_in(x, (0, 3, 2, 1))


@given(st.integers(0, 2), st.integers(0, 2))
def test_axes_just_put_in_are_put_in_elsewhere(before: int, after: int) -> None:
    cx = Context()
    x = value((3, 4))
    array = mx.random.normal((3, 4))
    order = {0: (0, 1, 2), 1: (1, 0, 2), 2: (1, 2, 0)}
    y = expand_dims(cx, x, [before], (1, 3, 4), order[before])
    z = cx.arrange(y, order[after])
    assert not any("transpose" in to_source(statement.code) for statement in cx.statements)
    got = evaluated(cx, x, array, z)
    assert np.array_equal(got, mx.expand_dims(array, 0).transpose(order[after]))


def test_functions_are_called_and_imported_by_the_file_that_defines_them() -> None:
    cx = giving((SHAPE, torch.float32), (SHAPE, torch.int64))
    x = value(SHAPE)
    cx.function(reduction.total, x, keepdims=True)
    cx.function_many(sorting.topk, x, 2, orders=[x.order, x.order], axis=1)
    step = cx.function_step(reduction.norm, x, x, shape=(), dtype=torch.float16)
    names = {x.variable: ast.Name("x")}
    assert [to_source(substitute(s.code, names)) for s in cx.statements] == [
        "total(x, keepdims=True)",
        "topk(x, 2, axis=1)",
        "norm(x)",
    ]
    assert [len(s.targets) for s in cx.statements] == [1, 2, 1]
    assert (step.shape, step.dtype) == ((), torch.float16)
    assert cx.model.imports == {
        "total": "arrays.reduction",
        "topk": "arrays.sorting",
        "norm": "arrays.reduction",
    }


def test_two_functions_of_one_name_are_refused() -> None:
    cx = giving((SHAPE, torch.float32))
    cx.function(reduction.mean, value(SHAPE))

    def mean(x: mx.array) -> mx.array:
        return x

    mean.__module__ = "mlxport.layers.norm.statistics"
    with pytest.raises(Unsupported, match=r"layers/arrays.reduction.py and layers/norm.statistics"):
        cx.function(mean, value(SHAPE))


def test_the_context_is_what_handlers_of_users_may_rely_on() -> None:
    cx: HandlerContext = Context()
    assert all(hasattr(Context, name) for name in vars(HandlerContext) if name[0] != "_")
    assert isinstance(cx.refuse("reason"), Unsupported)


def test_a_node_gives_other_results_in_a_context_of_its_own() -> None:
    cx = giving((SHAPE, torch.float32), (SHAPE, torch.int64))
    second = cx.giving(cx.results[1:])
    assert (cx.dtype, second.dtype) == (torch.float32, torch.int64)
    second.call("mx.sin", value(SHAPE))
    assert cx.statements is second.statements
    assert len(cx.statements) == 1
