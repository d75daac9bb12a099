"""Casts and copies."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

Fn = Callable[..., Any]
DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
]


@pytest.mark.parametrize("target", DTYPES, ids=str)
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_casts(source: torch.dtype, target: torch.dtype, assert_op_parity: Fn) -> None:
    x = torch.tensor([[0.0, 1.0, 2.75], [3.0, 100.0, 0.25]]).to(source)
    assert_op_parity(lambda x: x.to(target), x)


def test_negative_values_are_cut_towards_zero(assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: x.long(), torch.tensor([-1.75, 1.75, -0.5]))
    assert_op_parity(lambda x: x.bool(), torch.tensor([-0.0, torch.nan, 1e-30]))


def test_type_as(assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x, y: x.type_as(y), torch.randn(2, 3, 4), torch.arange(3))


def test_a_cast_to_the_same_dtype_is_nothing(lower_op: Fn) -> None:
    assert lower_op(lambda x: x.float(), torch.randn(2, 3, 4), orders=[(0, 2, 1)]).body == []


def test_copy(assert_op_parity: Fn) -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x.copy_(y)
        return x

    x = torch.randn(2, 3, 4)
    for y in (torch.randn(2, 3, 4), torch.arange(4), torch.ones(3, 1), torch.tensor(2)):
        assert_op_parity(fn, x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.float16], ids=str)
def test_lifted_and_scalar_tensors(dtype: torch.dtype, assert_op_parity: Fn) -> None:
    constant = torch.tensor([1, 0, 2]).to(dtype)
    assert_op_parity(lambda x: torch.where(x > 0, x, constant[0].to(x.dtype)), torch.randn(2, 3))
    assert_op_parity(lambda x: constant + torch.scalar_tensor(2, dtype=dtype), torch.randn(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.float8_e5m2], ids=str)
def test_what_mlx_does_not_have_is_refused(dtype: torch.dtype, lower_op: Fn) -> None:
    with pytest.raises(Unsupported, match=str(dtype).removeprefix("torch.")):
        lower_op(lambda x: x.to(dtype), torch.randn(3))
