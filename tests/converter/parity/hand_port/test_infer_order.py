"""Axis orders: which fit two shapes, and which the values confirm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxport.converter.parity.hand_port.infer_order import (
    ADDED,
    OrderMatch,
    OrderStatistics,
    channels_last_order,
    customary_orders,
    infer_order,
    possible_orders,
    torch_order,
)
from mlxport.converter.parity.run.layouts import to_mlx_order as as_mlx
from mlxport.converter.parity.run.layouts import to_torch_order as as_torch
from mlxport.converter.plan.record import Layout
from mlxport.converter.plan.tensor import Tensor


@pytest.mark.parametrize(
    ("shape", "stored", "orders"),
    [
        ((2, 3, 5), (2, 5, 3), [(0, 2, 1)]),
        ((2, 3, 5), (2, 3, 5), [(0, 1, 2)]),
        ((2, 3, 3), (2, 3, 3), [(0, 1, 2), (0, 2, 1)]),
        ((1, 3, 5, 7), (5, 7, 3), [(2, 3, 1)]),
        ((3, 5), (1, 3, 5), [(ADDED, 0, 1)]),
        ((1, 1, 4, 5), (1, 4, 5, 1), [(0, 2, 3, 1)]),
        ((4, 1, 1, 5), (4, 1, 5, 1), [(0, 2, 3, 1)]),
        ((1, 6, 1, 1), (1, 1, 1, 6), [(0, 2, 3, 1)]),
        ((1, 1, 4), (4,), [(2,)]),
        ((2, 3), (2, 4), []),
        ((2, 3), (2, 3, 2), []),
        ((2, 3, 4), (6, 4), []),
        ((), (), [()]),
        ((), (1,), [(ADDED,)]),
    ],
    ids=str,
)
def test_fitting(shape, stored, orders):
    assert sorted(possible_orders(shape, stored)) == orders


@st.composite
def placements(draw):
    """A shape, and an order with axes of size 1 left out or added."""
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=5)))
    kept = [a for a in range(len(shape)) if shape[a] != 1 or draw(st.booleans())]
    order = draw(st.permutations(kept))
    # either left out or added: which of several axes of size 1 is meant nobody can tell
    added = draw(st.integers(0, 2)) if len(kept) == len(shape) else 0
    for _ in range(added):
        order.insert(draw(st.integers(0, len(order))), ADDED)
    return shape, tuple(order)


@settings(deadline=None, max_examples=200)
@given(placements())
def test_the_order_is_found_by_the_values(placement):
    shape, order = placement
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    tensor = Tensor(values, "F32")
    array = as_mlx(tensor, Layout(shape, "float32", order))
    assert array.shape == tuple(1 if a == ADDED else shape[a] for a in order)
    assert np.array_equal(as_torch(array, Layout(shape, "float32", order)), values)
    found = infer_order(
        np.array(array),
        values.reshape(-1).astype(np.float64),
        shape,
        "float32",
        possible_orders(shape, array.shape),
    )
    assert found.recognised
    assert found.agrees
    assert not found.alternatives
    # axes of size 1 may be others; the values are the same
    assert np.array_equal(as_torch(array, Layout(shape, "float32", found.order)), values)


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_integers_and_flags(dtype):
    values = np.random.default_rng(0).integers(0, 2, (4, 4, 4)).astype(dtype)
    found = infer_order(
        values.transpose(2, 0, 1),
        values.reshape(-1),
        (4, 4, 4),
        dtype,
        possible_orders((4,) * 3, (4,) * 3),
    )
    assert (found.order, found.error, found.alternatives) == ((2, 0, 1), 0, ())
    assert found.agrees


def test_of_sampled_values():
    values = np.random.default_rng(0).normal(size=(6, 6, 6))
    indices = np.arange(0, 216, 5)
    found = infer_order(
        values.transpose(1, 2, 0),
        values.reshape(-1)[indices],
        (6, 6, 6),
        "float32",
        possible_orders((6,) * 3, (6,) * 3),
        indices=indices,
    )
    assert found.order == (1, 2, 0)


def test_nan_and_infinity_are_values_too():
    values = np.full((3, 3), np.nan)
    values[0, 1], values[2, 2] = 1, np.inf
    orders = [(0, 1), (1, 0)]
    assert infer_order(values.T, values.reshape(-1), (3, 3), "float32", orders).order == (1, 0)


@pytest.mark.parametrize("first", [(0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("fill", ["equal", "unlike"])
def test_where_values_say_nothing_the_likeliest_is_taken(first, fill):
    values = np.ones((3, 3))
    array = values if fill == "equal" else -values
    orders = [first, first[::-1]]
    found = infer_order(array, values.reshape(-1), (3, 3), "float32", orders)
    assert (found.order, found.alternatives) == (first, (first[::-1],))
    assert found.recognised == found.agrees == (fill == "equal")


@pytest.mark.parametrize("first", [(0, 1), (1, 0)], ids=str)
def test_what_differs_by_roundings_alone_is_equal(first):
    array = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    array += array.T
    array[0, 1] = np.nextafter(array[0, 1], np.float32(9))
    found = infer_order(array, array.reshape(-1), (5, 5), "float32", [first, first[::-1]])
    assert (found.order, found.alternatives) == (first, (first[::-1],))


def test_a_small_fault_does_not_hide_the_order():
    values = np.random.default_rng(0).normal(size=(5, 5, 5)) + 10
    off = values.transpose(2, 1, 0) * 1.001
    found = infer_order(
        off, values.reshape(-1), (5, 5, 5), "float32", possible_orders((5,) * 3, (5,) * 3)
    )
    assert found.order == (2, 1, 0)
    assert found.recognised
    assert not found.agrees


class TestOrderStatistics:
    @pytest.mark.parametrize(
        ("shape", "likeliest"),
        [((6, 6, 6, 6), (0, 2, 3, 1)), ((6, 6, 6), (0, 1, 2)), ((6, 6), (0, 1))],
        ids=str,
    )
    def test_without_neighbours(self, shape, likeliest):
        assert OrderStatistics().sorted(possible_orders(shape, shape), shape)[0] == likeliest

    def test_with_neighbours(self):
        statistics = OrderStatistics()
        statistics.note(OrderMatch((0, 2, 1), 1e-7), 3)
        assert statistics.sorted(possible_orders((6,) * 3, (6,) * 3), (6, 6, 6))[0] == (0, 2, 1)

    @pytest.mark.parametrize(
        "match", [OrderMatch((0, 2, 1), 0.5), OrderMatch((0, 2, 1), 0, ((0, 1, 2),))], ids=str
    )
    def test_what_is_not_certain_is_not_counted(self, match):
        statistics = OrderStatistics()
        statistics.note(match, 3)
        assert statistics.sorted(possible_orders((6,) * 3, (6,) * 3), (6, 6, 6))[0] == (0, 1, 2)


@pytest.mark.parametrize(
    ("shape", "orders"),
    [
        ((6, 6, 6, 6), {(0, 1, 2, 3), (0, 2, 3, 1)}),
        ((6, 6, 6), {(0, 1, 2), (0, 2, 1), (1, 0, 2)}),
        ((6, 6), {(0, 1)}),
    ],
    ids=str,
)
def test_customary(shape, orders):
    assert set(customary_orders(possible_orders(shape, shape), shape)) == orders


@pytest.mark.parametrize("rank", range(6))
def test_channels_last_is_an_order(rank):
    assert sorted(channels_last_order(rank)) == list(torch_order(rank))
    assert rank < 3 or channels_last_order(rank)[-1] == 1
