"""Constants in a model's code: written as numbers and short arrays where that means the same."""

import ast

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mlxport
from mlxport.converter.graph.ir.constants import array_of, number_of
from mlxport.converter.graph.ir.value import Value, logical_order

X = torch.linspace(-2, 2, 2 * 4 * 3).reshape(2, 4, 3)


class Net(nn.Module):
    """Runs a function given as ``run``, with buffers from keyword arguments."""

    def __init__(self, run, **buffers):
        super().__init__()
        self.run = run
        for name, (value, persistent) in buffers.items():
            self.register_buffer(name, value, persistent=persistent)

    def forward(self, x):
        return self.run(self, x)


def converted(run, x=X, **buffers):
    result = mlxport.convert(Net(run, **buffers).eval(), x)
    assert result.report.passed, result.report.to_text()
    return result


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (lambda m, x: x * torch.tensor(0.1), "return x * 0.1"),
        (lambda m, x: x + torch.tensor(2), "return x + 2"),
        (lambda m, x: x > torch.tensor(0.3), "return x > 0.3"),
        (lambda m, x: x / torch.tensor(0.1, dtype=torch.float64), "return x / 0.1"),
        (
            lambda m, x: torch.maximum(x, torch.tensor(0.3)),
            "mx.maximum(x, mx.array(0.3).astype(x.dtype))",
        ),
        (lambda m, x: torch.where(x > 0, x, torch.tensor(-torch.inf)), "mx.array(-mx.inf)"),
        (lambda m, x: x.half().sum() * torch.tensor(2.0), "* mx.array(2.0)"),
        (lambda m, x: x * torch.tensor([0.1, 0.2, 0.3]), "x * mx.array([0.1, 0.2, 0.3])"),
        (lambda m, x: x[:, torch.tensor([2, 0])], "mx.array([2, 0], dtype=mx.int64)"),
        (
            lambda m, x: x * torch.tensor([1.5, 2.0, 3.0], dtype=torch.bfloat16),
            "mx.array([1.5, 2.0, 3.0], dtype=mx.bfloat16)",
        ),
    ],
    ids=[
        "float", "integer", "comparison", "float64", "no overload for numbers", "where",
        "beside no axes", "vector", "indices", "bfloat16",
    ],
)  # fmt: skip
def test_short_constants_stand_in_the_code(run, line):
    result = converted(run)
    assert line in result.source
    assert not result.conversion.plan.constants
    assert not result.model.parameters()


def test_long_constants_stand_with_the_weights():
    table = torch.linspace(0, 1, 17).tolist()
    result = converted(lambda m, x: x.sum() * torch.tensor(table))
    assert "mx.array(" not in result.source
    assert list(result.conversion.plan.constants) == ["constant_0"]


def test_buffers_keep_their_names():
    mean, scale = torch.rand(1, 4, 1), torch.rand(())
    result = converted(lambda m, x: (x - m.mean) * m.scale, mean=(mean, False), scale=(scale, True))
    assert "(x - self.mean) * self.scale" in result.source
    assert list(result.conversion.plan.constants) == ["mean"]
    assert [entry.sources for entry in result.conversion.plan.entries] == [("scale",)]


def test_a_constant_is_stored_as_its_consumers_want_it():
    weight = [[[[0.5]], [[0.25]]]]

    def run(m, x):
        return nn.functional.conv2d(x, torch.tensor(weight))

    result = converted(run, torch.randn(1, 2, 3, 3))
    assert "mx.array([[[[0.5, 0.25]]]])" in result.source


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.int32, torch.int64, torch.uint8]
CONSTANTS = [
    torch.tensor(0.1),
    torch.tensor(3),
    torch.tensor(True),
    torch.tensor(0.1, dtype=torch.float16),
    torch.tensor(3, dtype=torch.uint8),
    torch.tensor(2.5, dtype=torch.bfloat16),
]


@pytest.mark.parametrize("constant", CONSTANTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_mix_as_in_pytorch(dtype, constant):
    value, kind = constant.item(), constant.dtype
    x = torch.arange(6).view(2, 3).to(dtype)
    converted(lambda m, x: x * torch.tensor(value, dtype=kind), x)


def beside(dtype, ndim=1):
    return Value((2,) * ndim, dtype, logical_order(ndim))


@pytest.mark.parametrize(
    ("constant", "dtype"),
    [
        (torch.tensor(True), torch.int64),
        (torch.tensor(2**40), torch.int64),
        (torch.tensor(0.5, dtype=torch.float64), torch.int64),  # makes it float64
        (torch.tensor(0.5, dtype=torch.float16), torch.int64),  # makes it float16
        (torch.tensor(3, dtype=torch.int32), torch.bool),  # makes it int32
    ],
    ids=["truth value", "beyond 32 bits", "float64", "float16", "int32"],
)
def test_no_number_where_it_would_mean_something_else(constant, dtype):
    assert number_of(constant, beside(dtype)) is None


def test_no_number_beside_an_array_without_axes():
    assert number_of(torch.tensor(2.0), beside(torch.float16, 0)) is None
    assert number_of(torch.tensor(2.0), beside(torch.float16)) == 2.0


@given(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
def test_a_number_has_the_value_of_the_constant(value, dtype):
    constant = torch.tensor(value, dtype=torch.float32)
    number = number_of(constant, beside(dtype))
    assert torch.equal(torch.tensor(number, dtype=dtype), constant.to(dtype))
    assert dtype is not torch.float32 or len(repr(number)) <= len(repr(float(np.float32(value))))


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_of_32_bits_are_numbers_and_longer_ones_are_not(sign):
    other = Value((3,), torch.int64, (0,), "x", None)
    assert number_of(torch.tensor(sign * (2**31 - 1)), other) == sign * (2**31 - 1)
    assert number_of(torch.tensor(sign * 2**31), other) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_short_constants_keep_every_bit_subnormals_among_them(dtype):
    least = torch.finfo(dtype).smallest_normal
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    smallest = torch.tensor([1, 2, 3], dtype=bits).view(dtype)  # nothing lies nearer to zero
    around = torch.tensor([least / 3, least / 2, least, -least / 7, 0.0, -0.0], dtype=dtype)
    constant = torch.cat([smallest, around])
    array = eval(ast.unparse(array_of(constant)), {"mx": mx})
    raw = mx.uint32 if dtype == torch.float32 else mx.uint16
    got = torch.from_numpy(
        np.array(array.view(raw)).view(np.int32 if raw == mx.uint32 else np.int16)
    )
    assert torch.equal(got, constant.view(bits))
