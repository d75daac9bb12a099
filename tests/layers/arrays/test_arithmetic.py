"""Division and remainders against torch, signs and special values included."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.arithmetic import (
    copysign,
    floor_divide,
    fmax,
    fmin,
    fmod,
    greatest_common_divisor,
    hypot,
    least_common_multiple,
    nextafter,
    signbit,
    truncated_divide,
)

SPECIAL = [0.0, -0.0, 0.1, 1.0, -1.0, 5.5, -5.5, 1e30, float("inf"), -float("inf"), float("nan")]
INTEGERS = [-7, -6, -1, 1, 2, 3, 7]


def same(got: mx.array, want: torch.Tensor) -> bool:
    return np.array_equal(np.array(got), want.numpy(), equal_nan=want.is_floating_point())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(fmod, torch.fmod), (floor_divide, torch.floor_divide)],
    ids=["fmod", "floor"],
)
def test_floating(ours: Callable[..., Any], theirs: Callable[..., Any]) -> None:
    x = np.array(SPECIAL, dtype=np.float32)
    got = ours(mx.array(x)[:, None], mx.array(x))
    assert same(got, theirs(torch.tensor(x)[:, None], torch.tensor(x)))
    for number in (0.1, -3, 2.5):
        assert same(ours(mx.array(x), number), theirs(torch.tensor(x), number))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(fmod, torch.fmod), (truncated_divide, lambda x, y: torch.div(x, y, rounding_mode="trunc"))],
    ids=["fmod", "trunc"],
)
def test_integers(
    ours: Callable[..., Any], theirs: Callable[..., Any], dtype: type[np.generic]
) -> None:
    x = np.array(INTEGERS, dtype=dtype)
    got = ours(mx.array(x)[:, None], mx.array(x))
    assert same(got, theirs(torch.tensor(x)[:, None], torch.tensor(x)))
    assert same(ours(mx.array(x), -2), theirs(torch.tensor(x), -2))


def test_the_quotient_is_not_rounded_first() -> None:
    one, tenth = mx.array(1.0), mx.array(0.1)
    assert floor_divide(one, tenth).item() == 9
    assert mx.floor(one / tenth).item() == 10


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(greatest_common_divisor, torch.gcd), (least_common_multiple, torch.lcm)],
    ids=["gcd", "lcm"],
)
def test_divisors_and_multiples(
    ours: Callable[..., Any], theirs: Callable[..., Any], dtype: type
) -> None:
    lowest = 0 if dtype == np.uint8 else -11
    x = np.arange(lowest, 11, dtype=dtype)
    got = ours(mx.array(x)[:, None], mx.array(x))
    assert same(got, theirs(torch.tensor(x)[:, None], torch.tensor(x)))


def test_the_divisor_that_takes_most_steps() -> None:
    a, b = 7540113804746346429, 4660046610375530309  # neighbouring Fibonacci numbers
    assert greatest_common_divisor(mx.array([a]), mx.array([b])).item() == 1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (fmax, torch.fmax),
        (fmin, torch.fmin),
        (copysign, torch.copysign),
        (nextafter, torch.nextafter),
        (hypot, torch.hypot),
    ],
    ids=["fmax", "fmin", "copysign", "nextafter", "hypot"],
)
def test_two_special_values(ours: Callable[..., Any], theirs: Callable[..., Any]) -> None:
    x = np.array(SPECIAL, dtype=np.float32)
    y = np.array([v for v in SPECIAL if not np.isnan(v)], dtype=np.float32)
    first, second = np.broadcast_arrays(x[:, None], y)
    got = ours(mx.array(first.copy()), mx.array(second.copy()))
    want = theirs(torch.tensor(first.copy()), torch.tensor(second.copy()))
    assert same(got, want)
    if ours is copysign:
        assert np.array_equal(np.signbit(np.array(got)), want.signbit().numpy())


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16, mx.int32], ids=str)
def test_signbit(dtype: mx.Dtype) -> None:
    x = mx.array([0.0, 1.0, -1.0]).astype(dtype)
    assert signbit(x).tolist() == [False, False, True]
    if dtype != mx.int32:
        assert signbit(mx.array([-0.0, -float("inf")]).astype(dtype)).tolist() == [True, True]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_remainders_of_the_extremes(dtype: type) -> None:
    limits = np.iinfo(dtype)
    x = np.array([limits.min, limits.min + 1, -1, 0, limits.max], dtype=dtype)
    for divisor in (3, -3, 7):
        assert same(fmod(mx.array(x), divisor), torch.fmod(torch.tensor(x), divisor))
    y = np.array([3, -3, 5, 7, limits.max], dtype=dtype)
    assert same(fmod(mx.array(x), mx.array(y)), torch.fmod(torch.tensor(x), torch.tensor(y)))
    if dtype == np.int32:
        assert same(fmod(mx.array(x), 2.5), torch.fmod(torch.tensor(x), 2.5))
