"""Elementwise arithmetic."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

Fn = Callable[..., Any]
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
SPECIAL = torch.tensor([0.0, -0.0, 1.5, -2.5, torch.inf, -torch.inf, torch.nan, 0.5, 3.5])


def between(low: float, high: float, *shape: int) -> torch.Tensor:
    return torch.rand(shape) * (high - low) + low


BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "floor_divide": torch.floor_divide,
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "rsub": torch.rsub,
    "add_alpha": lambda x, y: torch.add(x, y, alpha=3),
    "sub_alpha": lambda x, y: torch.sub(x, y, alpha=3),
    "rsub_alpha": lambda x, y: torch.rsub(x, y, alpha=3),
}
FLOAT_BINARY = BINARY | {
    "atan2": torch.atan2,
    "logaddexp": torch.logaddexp,
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
}
SHAPES = {
    "same": ((2, 3, 4, 5), (2, 3, 4, 5)),
    "channels": ((2, 3, 4, 5), (3, 1, 1)),
    "gate": ((2, 3, 4, 5), (2, 3, 1, 1)),
    "last axis": ((2, 3, 4, 5), (5,)),
    "last two axes": ((2, 3, 4, 5), (4, 5)),
    "spatial map": ((2, 3, 4, 5), (2, 1, 4, 5)),
    "rows": ((2, 3, 4, 5), (4, 1)),
    "one value": ((2, 3, 4, 5), (1,)),
    "ones": ((2, 3, 4, 5), (1, 1, 1)),
    "0-d": ((2, 3, 4, 5), ()),
    "both broadcast": ((2, 1, 4), (3, 1)),
    "lower rank first": ((4, 5), (2, 3, 4, 5)),
    "5-d": ((1, 2, 3, 4, 5), (2, 1, 1, 1)),
    "empty": ((2, 0, 3), (3,)),
    "both 0-d": ((), ()),
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_broadcasting(shapes: tuple[tuple[int, ...], ...], assert_op_parity: Fn) -> None:
    x, y = (torch.randn(shape) for shape in shapes)
    assert_op_parity(lambda x, y: x - y, x, y)
    assert_op_parity(lambda x, y: x - y, x, y, parameters=[1])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", FLOAT_BINARY)
def test_binary(name: str, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    # Quarters: quotients are exact in every dtype, so that rounding them has one answer.
    x, y = (torch.randint(1, 32, (2, 3, 4)) / 4 for _ in range(2))
    signs = torch.randint(0, 2, (2, 3, 4)) * 2 - 1
    assert_op_parity(lambda x, y: FLOAT_BINARY[name](x, y), x * signs, y, dtype=dtype)


SPECIAL_BINARY = [n for n in FLOAT_BINARY if n not in ("lerp", "floor_divide")]


@pytest.mark.parametrize("name", SPECIAL_BINARY)
def test_binary_of_special_values(name: str, assert_op_parity: Fn) -> None:
    x, y = SPECIAL[:, None], SPECIAL
    assert_op_parity(lambda x, y: FLOAT_BINARY[name](x, y), x, y)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_binary_of_integers(name: str, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    low = 0 if dtype == torch.uint8 else -20
    x = torch.randint(low, 21, (3, 4, 5), dtype=dtype)
    y = torch.randint(1, 7, (4, 5), dtype=dtype)
    assert_op_parity(lambda x, y: BINARY[name](x, y), x, y)
    if dtype != torch.uint8:
        assert_op_parity(lambda x, y: BINARY[name](x, y), x, -y)


@pytest.mark.parametrize("name", ["add", "mul", "maximum"])
def test_binary_of_bools(name: str, assert_op_parity: Fn) -> None:
    x, y = torch.tensor([True, True, False]), torch.tensor([[True], [False]])
    assert_op_parity(lambda x, y: BINARY[name](x, y), x, y)


DTYPES = [torch.bool, torch.uint8, torch.int32, torch.int64, *FLOATS]


@pytest.mark.parametrize("a", DTYPES, ids=str)
@pytest.mark.parametrize("b", DTYPES, ids=str)
def test_promotion(a: torch.dtype, b: torch.dtype, assert_op_parity: Fn) -> None:
    x, y = torch.arange(4).to(a), torch.arange(2, 6).to(b)
    assert_op_parity(lambda x, y: x + y, x, y)
    assert_op_parity(lambda x, y: x * y, x, y[1])
    assert_op_parity(lambda x, y: x / y, x[2], y)


NUMBERS: dict[str, Fn] = {
    "x + 1": lambda x: x + 1,
    "x + True": lambda x: x + True,
    "x * 2.5": lambda x: x * 2.5,
    "1 - x": lambda x: 1 - x,
    "2.5 - x": lambda x: 2.5 - x,
    "x / 3": lambda x: x / 3,
    "x // 3": lambda x: x // 3,
    "x % 3": lambda x: x % 3,
    "7 % (x + 1)": lambda x: 7 % (x + 1),
    "3 / (x + 1)": lambda x: 3 / (x + 1),
    "7 // (x + 1)": lambda x: 7 // (x + 1),
    "7.5 // (x + 1)": lambda x: 7.5 // (x + 1),
    "add alpha": lambda x: torch.add(x, 2, alpha=3),
}


# torch refuses to subtract a bool tensor
COMPUTABLE = [
    (name, dtype)
    for name in NUMBERS
    for dtype in DTYPES
    if not (dtype is torch.bool and name in ("1 - x", "2.5 - x"))
]


@pytest.mark.parametrize(("name", "dtype"), COMPUTABLE)
def test_numbers(name: str, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: NUMBERS[name](x), torch.arange(6).reshape(2, 3).to(dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("number", [1e6, 1e-9, 0.1, torch.inf, 1 << 40])
def test_numbers_that_half_precision_cannot_hold(
    number: float, dtype: torch.dtype, assert_op_parity: Fn
) -> None:
    x = torch.tensor([1e-3, 1e-4, 0.25])
    assert_op_parity(lambda x: x * number, x, dtype=dtype)
    assert_op_parity(lambda x: x / number, x, dtype=dtype)
    assert_op_parity(lambda x: x + number, x, dtype=dtype)


def test_an_integer_outside_its_dtype_is_refused(lower_op: Fn) -> None:
    with pytest.raises(Unsupported, match="1099511627776 does not fit int32"):
        lower_op(lambda x: x + (1 << 40), torch.arange(3, dtype=torch.int32))


def test_integer_sums_do_not_overflow(assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: x + ((1 << 31) - 1), torch.tensor([True, False]))
    assert_op_parity(lambda x, y: x * y, torch.tensor([1 << 30]), torch.tensor(8))


POWERS = [2, 3, 0, 1, -1, -2, 0.5, -0.5, 1.5, 2.0, 3.0]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("exponent", POWERS, ids=str)
def test_powers(exponent: float, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: x**exponent, between(0.1, 3, 2, 3, 4), dtype=dtype)


@pytest.mark.parametrize("exponent", POWERS, ids=str)
def test_powers_of_special_values(exponent: float, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: x**exponent, SPECIAL)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, -1.0], ids=str)
def test_powers_of_integers(exponent: float, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: x**exponent, torch.arange(1, 6).reshape(1, 5))


def test_other_powers(assert_op_parity: Fn) -> None:
    x, y = between(0.1, 3, 2, 3, 4), between(-2, 2, 3, 1)
    assert_op_parity(lambda x, y: x**y, x, y)
    assert_op_parity(lambda y: 2**y, y)
    assert_op_parity(lambda y: 10000.0**y, y)
    assert_op_parity(lambda y: 10000.0**y, torch.arange(3))
    assert_op_parity(lambda y: 2**y, torch.arange(5))
    assert_op_parity(lambda x, y: x**y, torch.arange(5), torch.arange(5).to(torch.uint8))


@pytest.mark.parametrize(
    "fn", [lambda x: x**x, lambda x: 1**x, lambda x: (-1) ** x], ids=["x**x", "1**x", "(-1)**x"]
)
def test_integer_powers_that_mlx_gets_wrong_are_refused(fn: Fn, lower_op: Fn) -> None:
    with pytest.raises(Unsupported, match="negative power"):
        lower_op(fn, torch.arange(3))


CLAMPS = {
    "both": lambda x: x.clamp(-0.5, 1),
    "lower": lambda x: x.clamp(min=0.2),
    "upper": lambda x: x.clamp(max=1),
    "crossed": lambda x: x.clamp(3, 1),
    "clip": lambda x: x.clip(-1, 1),
    "clamp_min": lambda x: torch.clamp_min(x, 0.1),
    "clamp_max": lambda x: torch.clamp_max(x, 0.1),
}


@pytest.mark.parametrize("name", CLAMPS)
@pytest.mark.parametrize("x", [SPECIAL, torch.arange(-3, 4)], ids=["floats", "integers"])
def test_clamp(name: str, x: torch.Tensor, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: CLAMPS[name](x), x)


def test_clamp_to_tensors(assert_op_parity: Fn) -> None:
    x, low, high = torch.randn(2, 3, 4), torch.randn(3, 1), torch.randn(4)
    assert_op_parity(lambda x, a, b: torch.clamp(x, a, b), x, low, high)
    assert_op_parity(lambda x, a: torch.clamp(x, min=a), x, low)
    assert_op_parity(lambda x, a: torch.clamp_max(x, a), x, low)


def test_of_three(assert_op_parity: Fn) -> None:
    x, a, b = torch.randn(2, 3, 4), torch.randn(3, 1), between(1, 2, 4)
    assert_op_parity(lambda x, a, b: torch.addcmul(x, a, b), x, a, b)
    assert_op_parity(lambda x, a, b: torch.addcmul(x, a, b, value=0.5), x, a, b)
    assert_op_parity(lambda x, a, b: torch.addcdiv(x, a, b), x, a, b)
    assert_op_parity(lambda x, a, b: torch.addcdiv(x, a, b, value=-2), x, a, b)
    assert_op_parity(lambda x, a, b: torch.lerp(x, a, b), x, a, b)


def test_float64_is_refused(lower_op: Fn) -> None:
    with pytest.raises(Unsupported, match="MLX has float64 on the CPU only"):
        lower_op(torch.exp, torch.zeros(2, dtype=torch.float64))
    with pytest.raises(Unsupported, match="complex128"):
        lower_op(lambda x: x + 1, torch.zeros(2, dtype=torch.complex128))


CHANNELS_LAST = (0, 2, 3, 1)
SOURCES = {
    "sum": (lambda x, y: x + y, (2, 3, 4, 5), CHANNELS_LAST, "a + b"),
    "difference with alpha": (lambda x, y: torch.sub(x, y, alpha=2), (), None, "a - 2 * b"),
    "bias": (lambda x, y: x * y, (3, 1, 1), (1, 2, 0), "a * b"),
    "one value": (lambda x, y: x * y, (1,), None, "a * b"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source(name: str, lower_op: Fn) -> None:
    fn, shape, order, source = SOURCES[name]
    x, y = torch.randn(2, 3, 4, 5), torch.randn(shape)
    lowered = lower_op(fn, x, y, orders=[CHANNELS_LAST, order])
    assert lowered.source == source
    assert lowered.orders == [CHANNELS_LAST]


@pytest.mark.parametrize("eps", [None, 0.25], ids=["open", "clamped"])
def test_a_number_stands_on_the_left_in_what_pytorch_decomposes(
    eps: float | None, assert_op_parity: Fn
) -> None:
    assert_op_parity(lambda x: torch.logit(x, eps), torch.tensor([0.125, 0.5, 0.875]))


@pytest.mark.parametrize(
    ("fn", "x", "stays"),
    [
        pytest.param(lambda x: x * 1.0, torch.randn(3), False, id="times one"),
        pytest.param(lambda x: x / 1, torch.randn(3), False, id="by one"),
        pytest.param(lambda x: x - 0.0, torch.randn(3), False, id="minus zero"),
        pytest.param(lambda x: x + 0.0, torch.tensor([-0.0]), True, id="-0.0 plus zero"),
        pytest.param(lambda x: x * 2.0, torch.randn(3), True, id="times two"),
        pytest.param(lambda x: x - 1, torch.randn(3), True, id="minus one"),
        pytest.param(lambda x: x / 1, torch.arange(3), True, id="integers by one"),
        pytest.param(lambda x: x * 1.0, torch.arange(3), True, id="integers times 1.0"),
        pytest.param(lambda x: x * 1, torch.randn(3, dtype=torch.cfloat), True, id="complex"),
    ],
)
def test_a_number_that_changes_nothing_is_left_out(
    fn: Fn, x: torch.Tensor, stays: bool, lower_op: Fn, assert_op_parity: Fn
) -> None:
    assert len(lower_op(lambda x: -fn(x), x).body) == 1 + stays
    assert_op_parity(fn, x)


def test_a_parameter_follows_the_computed_operand(lower_op: Fn) -> None:
    x, y = torch.randn(2, 3, 4, 5), torch.randn(8, 3, 4, 5)[:2]
    lowered = lower_op(lambda y, x: y + x, y, x, orders=[None, CHANNELS_LAST], parameters=[0])
    assert lowered.body == ["x1 = a.transpose(0, 2, 3, 1)", "x2 = x1 + b"]
    assert lowered.demands == {"args_0": [CHANNELS_LAST]}


def test_a_small_operand_follows_the_large_one(lower_op: Fn) -> None:
    x, gate = torch.randn(2, 3, 4, 5), torch.randn(2, 1, 4, 5)
    lowered = lower_op(lambda x, g: x * g, x, gate, orders=[None, CHANNELS_LAST])
    assert lowered.orders == [(0, 1, 2, 3)]


def test_axes_of_one_move_without_a_transpose(lower_op: Fn) -> None:
    x, gate = torch.randn(2, 3, 4, 5), torch.randn(2, 1, 1, 1)
    lowered = lower_op(lambda x, g: x * g, x, gate, orders=[CHANNELS_LAST, None])
    assert lowered.source == "a * b"
