"""Slices written to."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

Fn = Callable[..., Any]
LAST = (0, 2, 3, 1)


def write(index: Any, value: Any) -> Fn:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[index] = value(y)
        return x

    return fn


ALL = slice(None)
WRITES: dict[str, Fn] = {
    "range": write((ALL, slice(1, 3)), lambda y: y[:, :2]),
    "everything": write((ALL,), lambda y: y),
    "step": write((ALL, slice(0, 4, 2)), lambda y: y[:, :2]),
    "step at the end": write((..., slice(1, None, 2)), lambda y: y[..., :3]),
    "nothing": write((ALL, slice(2, 2)), lambda y: y[:, :0]),
    "negative start": write((ALL, slice(-2, None)), lambda y: y[:, :2]),
    "index": write((ALL, 1), lambda y: y[:, 0]),
    "negative index": write((..., -1), lambda y: y[..., 0]),
    "index and slices": write((ALL, slice(0, 2), 3, slice(1, 5)), lambda y: y[:, :2, 0, 2:]),
    "broadcast": write((ALL, slice(1, 3)), lambda y: y[:, :1]),
    "number": write((ALL, slice(1, 3)), lambda y: 7.0),
    "number at index": write((0,), lambda y: 7.0),
    "other dtype": write((ALL, 1), lambda y: y[:, 0].to(torch.int64)),
}


@pytest.mark.parametrize("name", WRITES)
def test_writing(name: str, assert_op_parity: Fn) -> None:
    assert_op_parity(WRITES[name], torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6))


def test_writing_in_other_dtypes(assert_op_parity: Fn) -> None:
    x, y = (torch.randint(0, 2, (2, 4, 5)) for _ in range(2))
    for dtype in (torch.bool, torch.float16):
        assert_op_parity(WRITES["range"], x.to(dtype), y.to(dtype))
    assert_op_parity(WRITES["step"], x, y)


def test_a_cost_volume(assert_op_parity: Fn, lower_op: Fn) -> None:
    def volume(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        cost = left.new_zeros(1, 4, 3, 5, 6)
        for i in range(3):
            cost[:, :2, i, :, i:] = left[..., i:]
            cost[:, 2:, i, :, i:] = right[..., : 6 - i]
        return cost

    left, right = torch.randn(1, 2, 5, 6), torch.randn(1, 2, 5, 6)
    assert_op_parity(volume, left, right)
    lowered = lower_op(volume, left, right, orders=[LAST, LAST])
    updates = [line for line in lowered.body if "slice_update" in line]
    assert updates[-1].endswith("mx.array([2, 2, 2]), axes=[1, 3, 4])")
    assert lowered.cx.model.imports == {}


def through(change: Callable[[torch.Tensor, torch.Tensor], Any]) -> Fn:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        change(x, y)
        return x

    return fn


def a_view(x: torch.Tensor, y: torch.Tensor) -> None:
    view = x[:, 1:]
    view[..., 2] = y[:, 1:, :, 0]
    view[0] = y[0, 1:]


def a_slice_of_a_slice(x: torch.Tensor, y: torch.Tensor) -> None:
    x[:, 1:][:, 1:] = y[:, 2:]
    x[:, 1:][:, 2][0] = y[0, 0]


def a_permuted_view(x: torch.Tensor, y: torch.Tensor) -> None:
    x.transpose(2, 3)[:, 1:, 0] = y[:, 1:, :, 0]
    x.permute(1, 0, 3, 2)[2, :, 3:] = y[:, 0, :, :3].transpose(1, 2)


def a_swapped_square(x: torch.Tensor, y: torch.Tensor) -> None:
    square = x[:, :, :3, :3]
    square.transpose(2, 3)[..., 1:, 0] = y[..., :2, 1]


def one_after_another(x: torch.Tensor, y: torch.Tensor) -> None:
    x[:, 0, 1:] = y[:, 0, 1:]
    x[:, 1, 1:] = x[:, 0, 1:]
    x[:, 2, :2] += y[:, 2, :2]


def what_was_read_before(x: torch.Tensor, y: torch.Tensor) -> None:
    part = x[:, 1:, 0].clone()
    x[:, 1:, 0, 2:] = y[:, 1:, 0, 2:]
    x[:, 1:, 1] = part


def what_comes_from_elsewhere(x: torch.Tensor, y: torch.Tensor) -> None:
    other = y[:, :2].clone()
    other[:, 0] = 7.0
    x[:, 1:3] = other


def another_part_of_itself(x: torch.Tensor, y: torch.Tensor) -> None:
    other = x[:, :2].clone()
    other[:, 0] = 7.0
    x[:, 2:] = other


def another_part_on_another_axis(x: torch.Tensor, y: torch.Tensor) -> None:
    other = x[:, :2, :3].clone()
    other[:, 0] = 7.0
    x[:, 1:3][:, :, :3] = other


def a_transposed_square(x: torch.Tensor, y: torch.Tensor) -> None:
    square = x[..., :5].transpose(2, 3).clone()
    square[..., 0] = 7.0
    x[..., :5] = square


def a_square_transposed_afterwards(x: torch.Tensor, y: torch.Tensor) -> None:
    square = x[..., :5].clone()
    square[..., 0] = 7.0
    x[..., :5] = square.transpose(2, 3)


VIEWS = [
    what_comes_from_elsewhere,
    another_part_of_itself,
    another_part_on_another_axis,
    a_transposed_square,
    a_square_transposed_afterwards,
    a_view,
    a_slice_of_a_slice,
    a_permuted_view,
    a_swapped_square,
    one_after_another,
    what_was_read_before,
]


@pytest.mark.parametrize("change", VIEWS, ids=lambda f: f.__name__)
def test_writing_through_views(change: Callable[..., Any], assert_op_parity: Fn) -> None:
    assert_op_parity(through(change), torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6))


SOURCES = {
    "range": (
        lambda x, y: torch.slice_scatter(x, y[:, 2:], 1, 2, 4),
        "mx.slice_update(a, x1, mx.array([2]), axes=[3])",
    ),
    "index": (
        lambda x, y: x.select_scatter(y[:, :, 2], 2, -1),
        "mx.slice_update(a, x2, mx.array([4]), axes=[1])",
    ),
    "several": (write((0, ALL, 1, slice(2, 5)), lambda y: y[0, :, 1, 2:5]), None),
    "steps": (
        lambda x, y: torch.slice_scatter(x, y[:, :2], 1, 0, 4, 2),
        "slice_scatter(a, x1, axis=-1, start=0, stop=4, step=2)",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source_of_channels_last(name: str, lower_op: Fn) -> None:
    fn, source = SOURCES[name]
    x, y = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    last = lower_op(fn, x, y, orders=[LAST, LAST]).body[-1].split(" = ", 1)[1]
    if source is None:
        assert last.startswith("mx.slice_update(a, ")
        assert last.endswith(", mx.array([0, 1, 2]), axes=[0, 1, 2])")
    else:
        assert last == source
