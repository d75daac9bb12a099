"""Division and remainders against torch, signs and special values included."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arithmetic import floor_divide, fmod, truncated_divide

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
