"""What each side promotes to, measured on both, and numbers that a dtype cannot hold."""

from itertools import product
from typing import Any

import mlx.core as mx
import pytest
import torch

from mlxport.converter.graph.ir.code import to_source
from mlxport.converter.graph.ir.context import Unsupported
from mlxport.converter.graph.ir.dtypes import (
    MLX_NAME,
    Typed,
    cast_to,
    literal,
    mlx_dtype,
    mlx_promoted,
    number,
    to_floating,
    torch_promoted,
    widened,
)
from mlxport.converter.graph.ir.value import Value

REAL = [d for d in MLX_NAME if d not in (torch.uint16, torch.uint32, torch.uint64, torch.complex64)]


def value(dtype: torch.dtype, ndim: int = 1) -> Value:
    return Value((2,) * ndim, dtype, tuple(range(ndim)))


def array(dtype: torch.dtype) -> mx.array:
    return mx.ones(2, dtype=getattr(mx, MLX_NAME[dtype]))


@pytest.mark.parametrize("dtype", MLX_NAME, ids=str)
def test_names(dtype: torch.dtype) -> None:
    assert isinstance(eval(to_source(mlx_dtype(dtype)), {"mx": mx}), mx.Dtype)
    if dtype != torch.complex64:
        size = torch.ones(1, dtype=dtype).element_size()
        assert array(dtype).itemsize == size


@pytest.mark.parametrize(
    ("dtype", "why"),
    [
        (torch.float64, "float64 on the CPU only"),
        (torch.complex128, "no complex128"),
        (torch.float8_e4m3fn, "no such dtype"),
    ],
    ids=str,
)
def test_dtypes_without_counterpart(dtype: torch.dtype, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        mlx_dtype(dtype)


@pytest.mark.parametrize(("a", "b"), list(product(REAL, REAL)), ids=str)
def test_promotion_of_arrays(a: torch.dtype, b: torch.dtype) -> None:
    assert (array(a) * array(b)).dtype == array(mlx_promoted(value(a), value(b))).dtype
    x, y = torch.ones(2, dtype=a), torch.ones(2, dtype=b)
    assert torch_promoted(value(a), value(b)) == (x * y).dtype
    assert torch_promoted(value(a), value(b, 0)) == (x * y[0]).dtype


@pytest.mark.parametrize("other", [True, 1, 2.5], ids=str)
@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_promotion_with_numbers(dtype: torch.dtype, other: Any) -> None:
    assert (array(dtype) * other).dtype == array(mlx_promoted(value(dtype), other)).dtype
    assert torch_promoted(value(dtype), other) == (torch.ones(2, dtype=dtype) * other).dtype


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_to_floating(dtype: torch.dtype) -> None:
    assert mx.exp(array(dtype)).dtype == array(to_floating(dtype)).dtype


def test_casts_only_where_needed() -> None:
    x = value(torch.float16)
    assert cast_to(x, torch.float16) is x
    assert widened(x).dtype == torch.float32
    assert widened(value(torch.int32)).dtype == torch.int32
    typed = cast_to(x, torch.int64)
    assert isinstance(typed, Typed)
    assert to_source(typed.code).endswith(".astype(mx.int64)")


@pytest.mark.parametrize(
    ("given", "dtype", "held"),
    [
        (2.5, torch.float16, True),
        (0.1, torch.float16, True),
        (1e6, torch.float16, False),
        (1e-9, torch.float16, False),
        (1e6, torch.bfloat16, True),
        (float("inf"), torch.float16, True),
        (1e-9, torch.float32, True),
    ],
)
def test_numbers_that_a_dtype_holds(given: float, dtype: torch.dtype, held: bool) -> None:
    assert isinstance(number(given, dtype), Typed) is not held


def test_integers_that_do_not_fit() -> None:
    assert number(255, torch.uint8) == 255
    with pytest.raises(Unsupported, match="-1 does not fit uint8"):
        number(-1, torch.uint8)


def test_literals() -> None:
    assert [literal(1, d) for d in (torch.bool, torch.int64, torch.float16)] == [True, 1, 1.0]
    assert [type(literal(1.0, d)) for d in (torch.bool, torch.int64, torch.float16)] == [
        bool,
        int,
        float,
    ]
