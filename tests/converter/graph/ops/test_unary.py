"""Elementwise functions of one array."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

Fn = Callable[..., Any]
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
SPECIAL = torch.tensor([0.0, -0.0, 1.5, -2.5, torch.inf, -torch.inf, torch.nan, 0.5, 3.5])

UNARY = {
    "abs": (torch.abs, -3, 3),
    "acos": (torch.acos, -1, 1),
    "acosh": (torch.acosh, 1, 9),
    "asin": (torch.asin, -1, 1),
    "asinh": (torch.asinh, -9, 9),
    "atan": (torch.atan, -9, 9),
    "atanh": (torch.atanh, -0.9, 0.9),
    "ceil": (torch.ceil, -9, 9),
    "cos": (torch.cos, -9, 9),
    "cosh": (torch.cosh, -5, 5),
    "erf": (torch.erf, -3, 3),
    "erfinv": (torch.erfinv, -0.9, 0.9),
    "exp": (torch.exp, -9, 4),
    "exp2": (torch.exp2, -9, 4),
    "expm1": (torch.expm1, -1, 1),
    "floor": (torch.floor, -9, 9),
    "log": (torch.log, 0.01, 9),
    "log10": (torch.log10, 0.01, 9),
    "log1p": (torch.log1p, -0.9, 9),
    "log2": (torch.log2, 0.01, 9),
    "neg": (torch.neg, -9, 9),
    "reciprocal": (torch.reciprocal, 0.1, 9),
    "round": (torch.round, -9, 9),
    "rsqrt": (torch.rsqrt, 0.1, 9),
    "sgn": (torch.sgn, -9, 9),
    "sigmoid": (torch.sigmoid, -9, 9),
    "sign": (torch.sign, -9, 9),
    "sin": (torch.sin, -9, 9),
    "sinh": (torch.sinh, -5, 5),
    "sqrt": (torch.sqrt, 0, 9),
    "square": (torch.square, -9, 9),
    "tan": (torch.tan, -1.4, 1.4),
    "tanh": (torch.tanh, -5, 5),
    "trunc": (torch.trunc, -9, 9),
}
TESTS = [torch.isfinite, torch.isinf, torch.isnan, torch.isneginf, torch.isposinf]


def between(low: float, high: float, *shape: int) -> torch.Tensor:
    return torch.rand(shape) * (high - low) + low


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    fn, low, high = UNARY[name]
    assert_op_parity(lambda x: fn(x), between(low, high, 2, 3, 4, 5), dtype=dtype)


@pytest.mark.parametrize("name", UNARY)
def test_unary_of_special_values(name: str, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: UNARY[name][0](x), SPECIAL)


@pytest.mark.parametrize("name", UNARY)
def test_unary_of_integers(name: str, assert_op_parity: Fn) -> None:
    low = {"acosh": 1, "log": 1, "log2": 1, "log10": 1, "rsqrt": 1, "sqrt": 0, "reciprocal": 1}
    high = {"acos": 1, "asin": 1, "erfinv": 0, "atanh": 0}
    x = torch.arange(low.get(name, 0 if name in ("atanh", "log1p") else -1), high.get(name, 3) + 1)
    assert_op_parity(lambda x: UNARY[name][0](x), x)


@pytest.mark.parametrize("fn", TESTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("x", [SPECIAL, torch.arange(3)], ids=["floats", "integers"])
def test_classification(fn: Fn, x: torch.Tensor, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: fn(x), x)


def test_unary_of_empty_and_scalar(assert_op_parity: Fn) -> None:
    assert_op_parity(torch.exp, torch.zeros(2, 0, 3))
    assert_op_parity(torch.exp, torch.tensor(0.5))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_to_num(dtype: torch.dtype, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: torch.nan_to_num(x, 1, 2, -3), SPECIAL, dtype=dtype)
    assert_op_parity(lambda x: torch.nan_to_num(x, neginf=-3) / 2, SPECIAL[-3:], dtype=dtype)


def test_nan_to_num_by_default_takes_the_extremes_of_the_dtype(lower_op: Fn) -> None:
    assert lower_op(torch.nan_to_num, SPECIAL).source == "mx.nan_to_num(a)"


def test_nan_to_num_of_integers(assert_op_parity: Fn) -> None:
    assert_op_parity(torch.nan_to_num, torch.arange(3))


@pytest.mark.parametrize("name", ["acosh", "asinh", "atanh"])
def test_complex_values_go_to_the_cpu_by_name(
    name: str, assert_op_parity: Fn, lower_op: Fn
) -> None:
    x = torch.complex(torch.rand(2, 3) + 0.1, torch.rand(2, 3) + 0.1)
    fn = getattr(torch, name)
    assert_op_parity(lambda x: fn(x), x)
    assert lower_op(lambda x: fn(x), x).source == f"mx.arc{name[1:]}(a, stream=mx.cpu)"
    assert "stream" not in lower_op(lambda x: fn(x), x.real.clone()).source
