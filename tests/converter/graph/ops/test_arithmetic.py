"""Elementwise arithmetic that MLX has no function for."""

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

SPECIAL = [0.0, -0.0, 1.5, -1.5, 3.0, torch.inf, -torch.inf, torch.nan]
PAIRS = {
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "copysign": torch.copysign,
    "hypot": torch.hypot,
    "nextafter": torch.nextafter,
}


def special(dtype=torch.float32):
    x = torch.tensor(SPECIAL, dtype=dtype)
    return x[:, None].expand(-1, len(x)).contiguous(), x


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name, assert_op_parity):
    x, y = special()
    if name == "copysign":
        y = y.nan_to_num()  # the sign of a NaN is nobody's
    if name == "nextafter":  # of what float64 has no next number like float32's
        x, y = x[2:5], torch.randn(len(y))
    assert_op_parity(lambda x, y: PAIRS[name](x, y), x, y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["fmax", "fmin"])
def test_half_precision(name, dtype, assert_op_parity):
    assert_op_parity(PAIRS[name], *special(dtype))


@pytest.mark.parametrize("name", ["fmax", "fmin", "copysign"])
def test_promotion(name, assert_op_parity):
    assert_op_parity(PAIRS[name], torch.arange(-2, 2), torch.tensor([0.5, -1.0, 2.0, -0.0]))
    if name != "copysign":
        assert_op_parity(PAIRS[name], torch.arange(-2, 2), torch.tensor([1, 0, -5, 2]))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("fn", [torch.gcd, torch.lcm])
def test_divisors(fn, dtype, assert_op_parity):
    x = torch.tensor([0, 1, 4, 6, 9, 10]).to(dtype)
    assert_op_parity(fn, x[:, None], x)


def test_powers_of_two(assert_op_parity):
    assert_op_parity(torch.ldexp, torch.randn(4, 5), torch.arange(-2, 3))
    assert_op_parity(torch.ldexp, torch.arange(5), torch.arange(-2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool], ids=str)
def test_signbit(dtype, assert_op_parity):
    assert_op_parity(torch.signbit, torch.tensor([0.0, -0.0, 1.0, -2.0]).to(dtype))


@pytest.mark.parametrize("decimals", [0, 2, -1])
def test_decimals(decimals, assert_op_parity):
    assert_op_parity(lambda x: torch.round(x, decimals=decimals), torch.randn(50) * 30)


def test_refused(lower_op):
    half = torch.ones(3, dtype=torch.float16)
    with pytest.raises(Unsupported, match="nextafter"):
        lower_op(lambda x: torch.ops.aten.nextafter(x.bfloat16(), x.bfloat16()), half)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_frexp(dtype, assert_op_parity):
    x = torch.tensor([1.0, 0.5, -3.7, 1e-7, 6e-8, 0.0, -0.0, 1024.0, torch.inf, torch.nan])
    assert_op_parity(torch.frexp, torch.cat([x, torch.randn(20)]).to(dtype))


def test_frexp_of_the_smallest_numbers(assert_op_parity):
    assert_op_parity(torch.frexp, torch.tensor([2.0**-126, 2.0**-127, -(2.0**-149), 3.4e38]))
