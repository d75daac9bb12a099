"""The permutations against a ground truth built element by element, and every step's inverse."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.json_data import from_data, to_data
from mlxport.converter.plan.steps import (
    Permute,
    Reshape,
    Step,
    TransposedConvWeight,
    axes_to_last,
    bilinear_weight,
    conv_transpose_weight,
    conv_weight,
    flattened_columns,
)
from mlxport.converter.plan.tensor import STORAGE, Tensor

Array = npt.NDArray[Any]


def apply(steps: tuple[Step, ...], array: Array) -> Array:
    tensors: tuple[Tensor, ...] = (Tensor(array, "I64"),)
    for step in steps:
        tensors = step.apply(tensors)
    return tensors[0].bits


def numbered(*shape: int) -> Array:
    """Every element another number, so that no two orders look alike."""
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape)


@pytest.mark.parametrize(
    ("ndim", "axis", "axes"),
    [(3, 0, (1, 2, 0)), (4, 1, (0, 2, 3, 1)), (5, 4, (0, 1, 2, 3, 4)), (1, 0, (0,))],
)
def test_axes_to_last(ndim: int, axis: int, axes: tuple[int, ...]) -> None:
    assert axes_to_last(ndim, axis) == axes


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_weight(rank: int) -> None:
    kernel = (2, 3, 4)[:rank]
    source = numbered(5, 6, *kernel)
    expected = np.empty((5, *kernel, 6), np.int64)
    for out, channel, *tap in itertools.product(*map(range, source.shape)):
        expected[(out, *tap, channel)] = source[(out, channel, *tap)]
    assert np.array_equal(apply(conv_weight(rank), source), expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("groups", "inputs", "outputs"),
    [(1, 5, 6), (2, 4, 6), (3, 3, 3), (3, 6, 3), (3, 3, 9), (4, 8, 4)],
    ids=["plain", "two", "depthwise", "narrowing", "widening", "four"],
)
def test_conv_transpose_weight(rank: int, groups: int, inputs: int, outputs: int) -> None:
    kernel = (2, 3, 4)[:rank]
    source = numbered(inputs, outputs // groups, *kernel)
    expected = np.full((outputs, *kernel, inputs // groups), -1, np.int64)
    for channel, out, *tap in itertools.product(*map(range, source.shape)):
        group, within = divmod(channel, inputs // groups)
        expected[(group * (outputs // groups) + out, *tap, within)] = source[(channel, out, *tap)]
    assert np.array_equal(apply(conv_transpose_weight(groups), source), expected)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))], ids=str)
def test_flattened_columns(order: tuple[int, ...]) -> None:
    sizes = (2, 3, 4)
    weight, x = numbered(5, 24), numbered(*sizes)
    steps = flattened_columns(5, sizes, order)
    moved = apply(steps, weight)
    assert moved.shape == weight.shape
    assert np.array_equal(moved @ x.transpose(order).reshape(-1), weight @ x.reshape(-1))
    tensors: tuple[Tensor, ...] = (Tensor(moved, "I64"),)
    for step in reversed(steps):
        tensors = step.invert(tensors)
    assert np.array_equal(tensors[0].bits, weight)


def test_bilinear_weight() -> None:
    weight = numbered(2, 3, 4)
    moved = apply(bilinear_weight(), weight)
    assert moved.shape == (2, 4, 3)
    assert all(moved[o, j, i] == weight[o, i, j] for o, i, j in np.ndindex(weight.shape))


def test_permute_puts_source_axis_axes_i_at_i() -> None:
    source = numbered(2, 3, 4)
    result = apply((Permute((2, 0, 1)),), source)
    assert result.shape == (4, 2, 3)
    assert result[3, 1, 2] == source[1, 2, 3]


def test_reshape_keeps_the_order_of_elements() -> None:
    source = numbered(2, 6).T  # logical order counts, not memory
    result = apply((Reshape((6, 2), (3, 4)),), source)
    assert np.array_equal(result.reshape(-1), source.reshape(-1))


def test_a_step_takes_every_tensor_of_its_entry() -> None:
    tensors = tuple(Tensor(numbered(2, n), "I64") for n in (3, 4))
    assert [t.shape for t in Permute((1, 0)).apply(tensors)] == [(3, 2), (4, 2)]


@st.composite
def steps_and_shapes(draw: st.DrawFn) -> tuple[Step, tuple[int, ...]]:
    sizes = st.integers(0, 3)
    kind = draw(st.sampled_from(["permute", "reshape", "transposed", "conv"]))
    shape = tuple(draw(st.lists(sizes, min_size=0, max_size=5)))
    if kind == "permute":
        return Permute(tuple(draw(st.permutations(range(len(shape)))))), shape
    if kind == "reshape":
        target = (*shape[:1], int(np.prod(shape[1:]))) if shape else (1,)
        return Reshape(shape, target), shape
    rank = draw(st.integers(1, 3))
    kernel = draw(st.tuples(*[st.integers(1, 3)] * rank))
    groups, inputs, outputs = draw(st.tuples(*[st.integers(1, 3)] * 3))
    if kind == "conv":
        return conv_weight(rank)[0], (outputs, inputs, *kernel)
    return TransposedConvWeight(groups), (groups * inputs, outputs, *kernel)


@given(data=st.data(), case=steps_and_shapes(), dtype=st.sampled_from(sorted(STORAGE)))
def test_inverse_restores_every_bit(
    data: st.DataObject, case: tuple[Step, tuple[int, ...]], dtype: str
) -> None:
    step, shape = case
    storage = STORAGE[dtype]
    raw = data.draw(
        hnp.arrays(np.uint8, (*shape, storage.itemsize), fill=st.nothing()), label="bytes"
    )
    raw = raw % 2 if dtype == "BOOL" else raw
    bits = np.ascontiguousarray(raw).view(storage).reshape(shape)
    there = step.apply((Tensor(bits, dtype),))
    (back,) = step.invert(there)
    assert there[0].dtype == back.dtype == dtype
    assert back.shape == shape
    assert np.ascontiguousarray(back.bits).tobytes() == bits.tobytes()
    assert (
        np.sort(np.ravel(there[0].bits).view(np.uint8)).tobytes()
        == np.sort(raw.reshape(-1)).tobytes()
    )


@given(case=steps_and_shapes())
def test_json_round_trip(case: tuple[Step, tuple[int, ...]]) -> None:
    assert from_data(Step, json.loads(json.dumps(to_data(case[0])))) == case[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"kind": "rotate"},
            "kind: Invalid value 'rotate'",
        ),
        ({}, "missing required field `kind`"),
        ({"kind": "permute", "axis": 1}, "unknown field `axis`"),
        ({"kind": "permute"}, "missing required field `axes`"),
        ({"kind": "permute", "axes": [0, "1"]}, r"axes\[1\]: Expected `int`, got `str`"),
    ],
    ids=["unknown", "no_kind", "wrong_field", "no_field", "wrong_type"],
)
def test_unreadable_step_is_an_error(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        from_data(Step, data)
