"""Views: merged, split, added and dropped axes in every stored order."""

import ast
from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxport.converter.graph.ir.sizes import Size, SizeUse
from mlxport.converter.graph.ir.value import Value, channels_last
from mlxport.converter.graph.ops.view import order_after_view, reshape_source, view_groups

Fn = Callable[..., Any]
Shape = tuple[int, ...]

VIEWS = {
    "flatten all": ((2, 3, 4, 5), (120,)),
    "flatten but the batch": ((2, 3, 4, 5), (2, 60)),
    "merge spatial axes": ((2, 3, 4, 5), (2, 3, 20)),
    "split a spatial axis": ((2, 3, 4), (2, 3, 2, 2)),
    "split channels": ((2, 6, 4, 5), (2, 2, 3, 4, 5)),
    "merge channels": ((2, 2, 3, 4, 5), (2, 6, 4, 5)),
    "merge channels and space": ((2, 6, 4, 5), (2, 2, 60)),
    "add ones": ((2, 3), (2, 3, 1, 1, 1)),
    "drop ones": ((2, 3, 1, 1, 1), (2, 3)),
    "one in between": ((2, 3, 4), (2, 1, 3, 4)),
    "batch of one": ((1, 3, 4, 5), (1, 3, 20)),
    "batch of one dropped": ((1, 3, 4, 5), (3, 4, 5)),
    "batch of one added": ((3, 4, 5), (1, 3, 4, 5)),
    "batch split off": ((6, 4, 5), (2, 3, 4, 5)),
    "batch merged": ((2, 3, 4, 5), (6, 4, 5)),
    "regrouped": ((4, 6), (6, 4)),
    "several groups": ((4, 6, 10), (2, 2, 12, 5)),
    "to 0-d": ((1, 1), ()),
    "from 0-d": ((), (1, 1)),
    "empty": ((2, 0, 3), (0, 6)),
    "empty of more": ((0, 3, 3, 3), (0, 9)),
    "empty of less": ((0, 4), (0, 2, 3)),
    "same": ((2, 3, 4), (2, 3, 4)),
}


@pytest.mark.parametrize("shapes", VIEWS.values(), ids=VIEWS)
def test_view(shapes: tuple[Shape, Shape], assert_op_parity: Fn) -> None:
    before, after = shapes
    assert_op_parity(lambda x: x.reshape(after), torch.randn(before))


def test_view_after_permute(assert_op_parity: Fn) -> None:
    x = torch.randn(2, 4, 3, 5)
    assert_op_parity(lambda x: x.transpose(1, 2).reshape(2, 3, 20), x)
    assert_op_parity(lambda x: x.flatten(2).transpose(1, 2).unflatten(1, (3, 5)), x)
    assert_op_parity(lambda x: x.permute(0, 2, 3, 1).contiguous().view(2, 15, 2, 2), x)


SOURCES = {
    "flatten": ((2, 3, 4, 5), (2, 60), None, ["x1 = a.flatten(1)"], (0, 1)),
    "flatten all": ((2, 3, 4), (24,), None, ["x1 = a.flatten()"], (0,)),
    "flatten in front": ((2, 3, 4), (6, 4), None, ["x1 = a.flatten(0, 1)"], (0, 1)),
    "channels-last, flatten": (
        (2, 3, 4, 5),
        (2, 60),
        (0, 2, 3, 1),
        ["x1 = a.transpose(0, 3, 1, 2)", "x2 = x1.flatten(1)"],
        (0, 1),
    ),
    "channels-last, merge space": (
        (2, 3, 4, 5, 6),
        (2, 3, 120),
        (0, 2, 3, 4, 1),
        ["x1 = a.flatten(1, 3)"],
        (0, 2, 1),
    ),
    "channels-last, split space": (
        (2, 3, 20),
        (2, 3, 4, 5),
        (0, 2, 1),
        ["x1 = mx.unflatten(a, 1, (4, 5))"],
        (0, 2, 3, 1),
    ),
    "channels-last, split channels": (
        (2, 6, 4, 5),
        (2, 2, 3, 4, 5),
        (0, 2, 3, 1),
        ["x1 = mx.unflatten(a, 3, (2, 3))"],
        (0, 3, 4, 1, 2),
    ),
    "pooled": ((2, 3, 1, 1, 1), (2, 3), (0, 2, 3, 4, 1), ["x1 = mx.squeeze(a, (1, 2, 3))"], (0, 1)),
    "gate": ((2, 3), (2, 3, 1, 1), None, ["x1 = mx.expand_dims(a, (1, 2))"], (0, 2, 3, 1)),
    "batch of any size": ((2, 3, 4), (2, 2, 6), None, ["x1 = a.reshape(-1, 2, 6)"], (0, 1, 2)),
    "nothing": ((2, 3), (2, 3), (1, 0), [], (1, 0)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source(name: str, lower_op: Fn) -> None:
    before, after, order, body, result = SOURCES[name]
    lowered = lower_op(
        lambda x: torch.ops.aten.view.default(x, after), torch.randn(before), orders=[order]
    )
    assert lowered.body == body
    assert lowered.orders == [result]


sizes = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=0, max_size=5)


def factors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


@st.composite
def views(draw: Any) -> tuple[Shape, Shape, Shape]:
    """A shape, another of as many elements, and an order to store the first in."""
    before = draw(sizes)
    rest, after = prod(before), []
    while rest > 1 or draw(st.booleans()):
        if len(after) == 6:
            break
        after.append(draw(st.sampled_from(factors(rest))))
        rest //= after[-1]
    after.append(rest)
    order = draw(st.permutations(range(len(before))))
    return tuple(before), tuple(after), tuple(order)


@given(views())
@settings(max_examples=500)
def test_the_stored_array_is_reshaped_to_what_the_order_says(case: Any) -> None:
    before, after, order = case
    x = torch.arange(prod(before)).reshape(before)
    result = order_after_view(Value(before, torch.int64, order), after)
    if result is None:
        assert order != tuple(range(len(before)))
        return
    assert sorted(result) == list(range(len(after)))
    stored = x.permute(order).reshape([after[axis] for axis in result])
    assert torch.equal(stored, x.reshape(after).permute(result))


@given(views())
def test_groups_are_the_smallest(case: Any) -> None:
    before, after, _ = case
    groups = view_groups(before, after)
    assert [axis for sources, _ in groups for axis in sources] == [
        axis for axis in range(len(before)) if any(axis in sources for sources, _ in groups)
    ]
    for sources, targets in groups:
        assert prod(before[i] for i in sources) == prod(after[i] for i in targets)
        for i in range(1, len(sources)):
            for j in range(1, len(targets)):
                assert prod(before[a] for a in sources[:i]) != prod(after[a] for a in targets[:j])


def test_spatial_merges_of_channels_last_are_free() -> None:
    for rank in (2, 3):
        shape = (2, 3, *range(4, 4 + rank))
        value = Value(shape, torch.float32, channels_last(rank + 2))
        assert order_after_view(value, (2, 3, prod(shape[2:]))) == (0, 2, 1)


def test_a_view_of_a_view_emits_what_is_needed_once(lower_op: Fn) -> None:
    lowered = lower_op(
        lambda x: x.flatten(2).transpose(1, 2),
        torch.randn(2, 3, 4, 5),
        orders=[(0, 2, 3, 1)],
    )
    assert lowered.body == ["x1 = a.flatten(1, 2)"]
    assert lowered.orders == [(0, 1, 2)]


H, W, A, B = (Size(sympy.Symbol(name, integer=True, positive=True)) for name in "hwab")
GROUPS = {
    "unknown which grows": ((H, W, A, B), (W, H, B, A), [([0, 1, 2, 3], [0, 1, 2, 3])]),
    "known which grows": ((H, W, A), (H * W, A), [([0, 1], [0]), ([2], [1])]),
    "nothing left to grow": ((0, 3), (2, 0), [([0, 1], [0, 1])]),
}


@pytest.mark.parametrize(("before", "after", "groups"), GROUPS.values(), ids=GROUPS)
def test_groups_of_dynamic_and_of_empty_shapes(before: Any, after: Any, groups: Any) -> None:
    assert view_groups(before, after) == groups


def test_of_sizes_alike_the_first_is_left_to_mlx() -> None:
    x = Value((H, W, 6), torch.float32, (0, 1, 2))
    reshaped = reshape_source(x, (W, H, 6))
    assert isinstance(reshaped, ast.Call)
    assert [isinstance(size, SizeUse) for size in reshaped.args] == [False, True, False]
