"""Arrays made of numbers alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

Fn = Callable[..., Any]
X = torch.randn(2, 3, 4)
DTYPES = [None, torch.bool, torch.int32, torch.int64, torch.float16, torch.float32]

MADE: dict[str, Fn] = {
    "zeros": lambda dtype: torch.zeros(2, 3, dtype=dtype),
    "ones": lambda dtype: torch.ones(2, 3, dtype=dtype),
    "full": lambda dtype: torch.full((2, 3), 7, dtype=dtype),
    "full of a fraction": lambda dtype: torch.full((2,), 0.5, dtype=dtype),
    "full of infinity": lambda dtype: torch.full((2,), -torch.inf, dtype=torch.float16),
    "arange": lambda dtype: torch.arange(5, dtype=dtype),
    "arange from": lambda dtype: torch.arange(2, 7, dtype=dtype),
    "arange step": lambda dtype: torch.arange(2, 9, 3, dtype=dtype),
    "arange down": lambda dtype: torch.arange(5, -1, -2, dtype=dtype),
    "arange of nothing": lambda dtype: torch.arange(0, dtype=dtype),
    "arange of fractions": lambda dtype: torch.arange(0.5, 3, 0.25),
    "arange of tenths": lambda dtype: torch.arange(0, 1, 0.1),
    "arange long": lambda dtype: torch.arange(0, 3000.0),
    "linspace": lambda dtype: torch.linspace(-1, 1, 7),
    "linspace of one": lambda dtype: torch.linspace(-1, 1, 1),
    "linspace of half": lambda dtype: torch.linspace(0, 5, 11, dtype=torch.float16),
    "eye": lambda dtype: torch.eye(3, dtype=dtype),
    "eye of a rectangle": lambda dtype: torch.eye(2, 3, dtype=dtype),
    "empty shape": lambda dtype: torch.zeros(0, 3, dtype=dtype),
    "0-d": lambda dtype: torch.full((), 3, dtype=dtype),
    "full of a complex number": lambda dtype: torch.full((2,), 2.0, dtype=torch.complex64),
}


# torch has no arange of bools
MAKEABLE = [
    (name, dtype)
    for name in MADE
    for dtype in DTYPES
    if not (dtype is torch.bool and name.startswith("arange"))
]


@pytest.mark.parametrize(("name", "dtype"), MAKEABLE)
def test_made_of_numbers(name: str, dtype: torch.dtype | None, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: (MADE[name](dtype), x), X)


LIKE: dict[str, Fn] = {
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "full_like": lambda x: torch.full_like(x, 2),
    "fill": lambda x: torch.ops.aten.fill.Scalar(x, 3),
    "other dtype": lambda x: torch.zeros_like(x, dtype=torch.int64),
    "new_zeros": lambda x: x.new_zeros(3, 2),
    "new_ones": lambda x: x.new_ones(3, 2),
    "new_full": lambda x: x.new_full((3, 2), 5),
    "new_tensor": lambda x: x.new_zeros((3, 2), dtype=torch.int32),
}


@pytest.mark.parametrize("name", LIKE)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16], ids=str)
def test_made_like_another(name: str, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: LIKE[name](x), X.to(dtype))


def test_empty_is_zeros(lower_op: Fn) -> None:
    assert lower_op(lambda x: (x, torch.empty(2, 3)), X).source == "mx.zeros((2, 3))"
    assert lower_op(lambda x: (x, x.new_empty(2)), X).source == "mx.zeros((2,))"


SOURCES: dict[str, Fn] = {
    "mx.zeros((2, 3))": lambda: torch.zeros(2, 3),
    "mx.ones((2, 3), dtype=mx.int64)": lambda: torch.ones(2, 3, dtype=torch.int64),
    "mx.full((2,), 0.5)": lambda: torch.full((2,), 0.5),
    "mx.full((2,), -mx.inf)": lambda: torch.full((2,), -torch.inf),
    "mx.arange(5, dtype=mx.int64)": lambda: torch.arange(5),
    "mx.arange(1, 6, 2, dtype=mx.float32)": lambda: torch.arange(1, 6, 2, dtype=torch.float32),
    "mx.arange(0.0, 1.0, 0.25)": lambda: torch.arange(0.0, 1.0, 0.25),
    "mx.linspace(0, 1, 5)": lambda: torch.linspace(0, 1, 5),
    "mx.eye(3)": lambda: torch.eye(3),
    "mx.eye(3).astype(mx.int64)": lambda: torch.eye(3, dtype=torch.int64),
    "mx.eye(3, 2, dtype=mx.int32)": lambda: torch.eye(3, 2, dtype=torch.int32),
}


@pytest.mark.parametrize("source", SOURCES)
def test_source(source: str, lower_op: Fn) -> None:
    assert lower_op(lambda x: (x, SOURCES[source]()), X).source == source


def test_linspace_of_integers_is_refused(lower_op: Fn) -> None:
    with pytest.raises(Unsupported, match="make them floating"):
        lower_op(lambda x: torch.linspace(0, 4, 3, dtype=torch.int64), X)
