"""Constant arrays as short expressions, which make exactly their values."""

import ast

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlxport.converter.graph.ir.code import to_source
from mlxport.converter.graph.ir.constant_source import short_expression

CASES = {
    "zeros": (torch.zeros(2, 3), "mx.zeros((2, 3))"),
    "true": (torch.ones(2, 7, dtype=torch.bool), "mx.ones((2, 7), dtype=mx.bool_)"),
    "infinity": (torch.full((3,), -torch.inf), "mx.full((3,), -mx.inf)"),
    "negative zero": (torch.full((3,), -0.0), "mx.full((3,), -0.0)"),
    "a number": (torch.tensor(0.1), "mx.full((), 0.1)"),
    "integers in steps": (torch.arange(20).int(), "mx.arange(20)"),
    "backwards": (torch.arange(19, -1, -1), "mx.arange(19, -1, -1, dtype=mx.int64)"),
    "counted floats": (torch.arange(3.0, 30.0), "mx.arange(3, 30, dtype=mx.float32)"),
    "along one axis": (
        torch.arange(20)[:, None].expand(20, 3),
        "mx.broadcast_to(mx.expand_dims(mx.arange(20, dtype=mx.int64), 1), (20, 3))",
    ),
    "causal": (torch.ones(9, 9).tril().bool(), "mx.tril(mx.ones((9, 9), dtype=mx.bool_))"),
    "causal, to add": (
        torch.full((9, 9), -torch.inf).triu(1),
        "mx.triu(mx.full((9, 9), -mx.inf), 1)",
    ),
    "for a batch": (
        torch.ones(5, 9).tril(4).expand(2, 1, 5, 9),
        "mx.broadcast_to(mx.expand_dims(mx.tril(mx.ones((5, 9)), 4), (0, 1)), (2, 1, 5, 9))",
    ),
    "few integers": (torch.tensor([3, 1, 2]), "mx.array([3, 1, 2], dtype=mx.int64)"),
}

NONE = {
    "many integers": torch.arange(20) ** 2,
    "floats": torch.arange(4).float().cos(),
    "two triangles": torch.ones(9, 9).tril() + torch.ones(9, 9).tril(-3),
    "not a number": torch.tensor([torch.nan, 1.0]),
    "float64": torch.zeros(3, dtype=torch.float64),
    "nothing": torch.zeros(0, 3),
}


def made(source: str) -> np.ndarray:
    return np.array(eval(source, {"mx": mx}))


@pytest.mark.parametrize(("constant", "source"), CASES.values(), ids=CASES)
def test_written(constant: torch.Tensor, source: str) -> None:
    code = short_expression(constant)
    assert code is not None
    assert to_source(code) == source
    assert made(source).dtype == constant.numpy().dtype
    assert made(source).tobytes() == constant.contiguous().numpy().tobytes()


@pytest.mark.parametrize("constant", NONE.values(), ids=NONE)
def test_left_as_they_are_computed(constant: torch.Tensor) -> None:
    assert short_expression(constant) is None


@given(st.data())
def test_whatever_is_written_makes_the_constant(data: st.DataObject) -> None:
    """Values that often are of a pattern, repeated along some axes, the axes in any order."""
    dtype = data.draw(st.sampled_from([torch.bool, torch.int64, torch.int32, torch.float32]))
    shape = data.draw(st.lists(st.integers(1, 4), max_size=3))
    numbers = st.sampled_from([0, 1]) if dtype == torch.bool else st.integers(-2, 2)
    count = int(np.prod(shape))
    values = data.draw(st.lists(numbers, min_size=count, max_size=count))
    x = torch.tensor(values, dtype=dtype).reshape(shape)
    if data.draw(st.booleans()) and x.ndim > 1:
        x = torch.full_like(x, x.flatten()[0].item()).tril(data.draw(st.integers(-3, 3)))
    x = x.expand((*data.draw(st.lists(st.integers(1, 3), max_size=2)), *x.shape))
    x = x.permute(data.draw(st.permutations(range(x.ndim))))
    code = short_expression(x)
    if code is not None:
        ast.fix_missing_locations(code)
        array = made(to_source(code))
        assert array.dtype == x.numpy().dtype
        assert array.tobytes() == x.contiguous().numpy().tobytes()
