"""Comparisons, logic, bits and choices."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

Fn = Callable[..., Any]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("compare", COMPARISONS, ids=lambda f: f.__name__)
def test_comparisons(compare: Fn, assert_op_parity: Fn) -> None:
    x, y = torch.randint(0, 4, (2, 3, 4)), torch.randint(0, 4, (3, 1))
    assert_op_parity(compare, x, y)
    assert_op_parity(lambda x: compare(x, 2), x)
    assert_op_parity(lambda x: compare(x, 1.5), x)
    special = torch.tensor([0.0, -0.0, 1.0, torch.nan, torch.inf])
    assert_op_parity(lambda x: compare(x, x[:, None]), special)


@pytest.mark.parametrize("a", DTYPES, ids=str)
def test_comparisons_of_mixed_dtypes(a: torch.dtype, assert_op_parity: Fn) -> None:
    x = torch.arange(6).reshape(2, 3).to(a)
    others = [torch.tensor([1, 2, 0]).to(b) for b in DTYPES]
    assert_op_parity(lambda x, *ys: [x >= y for y in ys], x, *others, orders=[None] * 7)
    assert_op_parity(lambda x, *ys: [x == y[1] for y in ys], x, *others, orders=[None] * 7)


def test_a_0d_operand_is_compared_in_the_dtype_of_the_other(assert_op_parity: Fn) -> None:
    x, y = torch.tensor([0.1, 0.2]).half(), torch.tensor(0.1)
    assert_op_parity(lambda x, y: x == y, x, y)


def test_a_number_outside_the_dtype_is_refused(lower_op: Fn) -> None:
    with pytest.raises(Unsupported, match="300 does not fit uint8"):
        lower_op(lambda x: torch.ops.aten.lt.Scalar(x, 300), torch.zeros(2, dtype=torch.uint8))


LOGIC = [torch.logical_and, torch.logical_or, torch.logical_xor]


@pytest.mark.parametrize("fn", LOGIC, ids=lambda f: f.__name__)
def test_logic(fn: Fn, assert_op_parity: Fn) -> None:
    a, b = torch.tensor([[True], [False]]), torch.tensor([True, False])
    assert_op_parity(lambda a, b: fn(a, b), a, b)
    assert_op_parity(lambda a, b: fn(a, b), a * 2, b * 0.5)
    assert_op_parity(lambda a, b: fn(a, b), a, b * 3)


def test_not(assert_op_parity: Fn) -> None:
    assert_op_parity(torch.logical_not, torch.tensor([True, False]))
    assert_op_parity(torch.logical_not, torch.tensor([0.0, 2.0, torch.nan]))
    assert_op_parity(lambda x: ~x, torch.tensor([[True, False]]))
    assert_op_parity(lambda x: ~x, torch.arange(3))


BITS = {
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "left": operator.lshift,
    "right": operator.rshift,
}


@pytest.mark.parametrize("name", BITS)
def test_bits(name: str, assert_op_parity: Fn) -> None:
    x, y = torch.arange(12).reshape(3, 4), torch.arange(1, 5)
    assert_op_parity(lambda x, y: BITS[name](x, y), x, y)
    assert_op_parity(lambda x: BITS[name](x, 3), x.to(torch.int32))
    if name in ("and", "or", "xor"):
        assert_op_parity(lambda x, y: BITS[name](x, y), x > 5, y > 2)


CHOICES: dict[str, Fn] = {
    "two arrays": lambda c, x: torch.where(c, x, -x),
    "array and number": lambda c, x: torch.where(c, x, 0.0),
    "number and array": lambda c, x: torch.where(c, 2, x),
    "two integers": lambda c, x: torch.where(c, 1, 0),
    "two numbers": lambda c, x: torch.where(c, 1.5, 0.0),
    "two bools": lambda c, x: torch.where(c, True, False),
    "mixed dtypes": lambda c, x: torch.where(c, x, torch.arange(4)),
    "0-d": lambda c, x: torch.where(c, x, torch.tensor(-torch.inf)),
    "masked_fill": lambda c, x: x.masked_fill(c, -torch.inf),
    "masked_fill number": lambda c, x: x.masked_fill(c, 3),
    "masked_fill array": lambda c, x: x.masked_fill(c, torch.tensor(2)),
    "masked_fill ints": lambda c, x: (x * 8).long().masked_fill(c, -1),
    "masked_fill bools": lambda c, x: (x > 0).masked_fill(c, True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", CHOICES)
def test_choices(name: str, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    x = torch.randn(2, 3, 4)
    assert_op_parity(lambda c, x: CHOICES[name](c, x), x > 0.5, x, dtype=dtype)
    assert_op_parity(lambda c, x: CHOICES[name](c, x), x[0, :, :1] > 0, x, dtype=dtype)


def test_a_mask_that_broadcasts_the_result(assert_op_parity: Fn) -> None:
    mask = torch.tensor([[[True]], [[False]]])
    assert_op_parity(lambda c, x: torch.where(c, x, 0.0), mask, torch.randn(3, 4))
