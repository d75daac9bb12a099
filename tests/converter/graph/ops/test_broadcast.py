"""Alignment of operands stored in any orders, with PyTorch's broadcasting meaning."""

import ast
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxport.converter.graph.ir.code import substitute, to_source
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.provenance import Provenance, ProvenanceKind
from mlxport.converter.graph.ir.value import Order, Value, Variable
from mlxport.converter.graph.ops.broadcast import align, choose_order, common_order, rearrange

FLOAT = torch.float32


PARAMETER = Provenance(ProvenanceKind.ARRAY, "p")


def value(
    shape: tuple[int, ...], order: Order | None = None, provenance: Provenance | None = None
) -> Value:
    order = tuple(range(len(shape))) if order is None else order
    return Value(shape, FLOAT, order, provenance=provenance)


def run(cx: Context, arrays: dict[Variable, mx.array]) -> dict[Variable, mx.array]:
    """Execute the statements; return what every variable holds."""
    names = {variable: f"v{i}" for i, variable in enumerate(arrays)}
    space: dict[str, Any] = {"mx": mx, **{names[v]: array for v, array in arrays.items()}}
    for statement in cx.statements:
        (target,) = statement.targets
        names[target.variable] = f"v{len(names)}"
        tree = substitute(statement.code, {v: ast.Name(name) for v, name in names.items()})
        space[names[target.variable]] = eval(to_source(tree), space)
    return {variable: space[name] for variable, name in names.items()}


@st.composite
def operands(draw: Any) -> list[tuple[tuple[int, ...], Order, bool]]:
    """Shapes that broadcast, the order each is stored in, and whether it is a parameter."""
    full = draw(st.lists(st.integers(1, 3), min_size=0, max_size=4))
    made = []
    for _ in range(draw(st.integers(1, 3))):
        rank = draw(st.integers(0, len(full)))
        shape = [draw(st.sampled_from([1, n])) for n in full[len(full) - rank :]]
        order = draw(st.permutations(range(rank)))
        made.append((tuple(shape), tuple(order), draw(st.booleans())))
    return made


@given(operands())
@settings(max_examples=300)
def test_aligned_arrays_broadcast_as_in_pytorch(case: Any) -> None:
    cx, values, arrays, tensors = Context(), [], {}, []
    for shape, order, is_parameter in case:
        tensors.append(torch.randn(shape))
        values.append(value(shape, order, PARAMETER if is_parameter else None))
        arrays[values[-1].variable] = mx.array(tensors[-1].permute(order).contiguous().numpy())
    aligned, order = align(cx, *values)
    made = run(cx, arrays)
    for operand in aligned:
        assert made[operand.variable].shape == operand.stored_shape
    got = sum(made[operand.variable] for operand in aligned)
    want = sum(tensors).permute(order)  # type: ignore[union-attr]
    assert np.allclose(np.array(got), want.numpy(), atol=1e-6)


def test_numbers_are_handed_back() -> None:
    x = value((2, 3))
    assert align(Context(), x, 2.5, None) == ([x, 2.5, None], (0, 1))


def test_the_order_of_most_elements_wins_over_pytorchs_own() -> None:
    logical, last = value((2, 3, 4)), value((2, 3, 4), (0, 2, 1))
    other = value((2, 3, 1), (1, 0, 2))
    assert choose_order([logical, other, last, logical], 3) == (0, 2, 1)
    assert choose_order([logical], 3) == (0, 1, 2)
    assert choose_order([], 2) == (0, 1)


def test_parameters_have_no_say_where_there_is_another() -> None:
    parameter, computed = value((2, 3), (1, 0), PARAMETER), value((2, 3))
    assert common_order(Context(), [parameter, computed])[1] == (0, 1)
    assert common_order(Context(), [parameter, parameter])[1] == (1, 0)


def test_axes_of_one_are_renamed_but_for_the_batch() -> None:
    cx = Context()
    gate = value((2, 3, 1, 1), (0, 1, 3, 2))
    assert rearrange(cx, gate, (0, 1, 2, 3)).variable is gate.variable
    batch = value((1, 1, 4))
    assert rearrange(cx, batch, (1, 0, 2)).variable is not batch.variable
    assert [to_source(s.code).partition(".")[2] for s in cx.statements] == ["transpose(1, 0, 2)"]


def test_what_is_aligned_twice_is_transposed_once() -> None:
    cx = Context()
    big, small = value((2, 3, 4, 5), (0, 2, 3, 1)), value((2, 3, 4, 5), provenance=PARAMETER)
    align(cx, big, small)
    align(cx, big, small)
    assert len(cx.statements) == 1
    assert cx.model.demands[PARAMETER] == [(0, 2, 3, 1)]


@pytest.mark.parametrize("sizes", [(1, 3, 4, 5), (2, 3, 4, 5), (4, 2, 3, 4, 5)], ids=str)
def test_a_parameter_takes_the_order_of_what_is_computed(
    sizes: tuple[int, ...], lower_op: Any
) -> None:
    """However large it is: it is stored once, the other is transposed at every call."""
    order = (*(i for i in range(len(sizes)) if i != 1), 1)
    parameter = torch.randn(2, 3, 4, 5)
    lowered = lower_op(
        lambda w, x: w + x, parameter, torch.randn(sizes), orders=[None, order], parameters=[0]
    )
    assert lowered.orders == [order]
    assert not [line for line in lowered.body if "b.transpose" in line]
