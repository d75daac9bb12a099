"""`layers.folding` against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers import Fold, Unfold
from mlxport.layers.spatial.folding import fold, unfold

SIZES = (7, 8)
BLOCKS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3},
    "unequal": {"kernel_size": (2, 3), "stride": (1, 2)},
    "patches": {"kernel_size": 2, "stride": 2},
    "padding": {"kernel_size": 3, "padding": (1, 2)},
    "dilation": {"kernel_size": (2, 3), "dilation": (3, 2)},
    "all": {"kernel_size": 3, "dilation": 2, "padding": 2, "stride": 3},
}
ALL = pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)


def to_mlx(x: torch.Tensor) -> mx.array:
    return mx.array(x.movedim(1, -1).contiguous())


@ALL
def test_unfold(blocks: dict[str, Any]) -> None:
    x = torch.randn(2, 3, *SIZES)
    want = F.unfold(x, **blocks).movedim(1, -1).numpy()
    np.testing.assert_array_equal(np.array(unfold(to_mlx(x), **blocks)), want)
    np.testing.assert_array_equal(np.array(unfold(to_mlx(x)[1], **blocks)), want[1])
    np.testing.assert_array_equal(np.array(Unfold(**blocks)(to_mlx(x))), want)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_fold(
    assert_parity: Callable[..., None], blocks: dict[str, Any], dtype: torch.dtype
) -> None:
    x = torch.randn(F.unfold(torch.zeros(2, 3, *SIZES), **blocks).shape).to(dtype)
    y = fold(to_mlx(x), SIZES, **blocks)
    assert_parity(y, lambda x: F.fold(x, SIZES, **blocks), x, order=(0, 2, 3, 1))
    assert mx.array_equal(fold(to_mlx(x)[1], SIZES, **blocks), y[1])
    assert mx.array_equal(Fold(SIZES, **blocks)(to_mlx(x)), y)


@ALL
def test_each_is_the_gradient_of_the_other(blocks: dict[str, Any]) -> None:
    x = mx.random.normal((2, *SIZES, 3))
    columns = mx.random.normal(unfold(x, **blocks).shape)
    _, (gradient,) = mx.vjp(lambda x: unfold(x, **blocks), [x], [columns])
    assert mx.allclose(gradient, fold(columns, SIZES, **blocks), atol=1e-5)
    _, (gradient,) = mx.vjp(lambda c: fold(c, SIZES, **blocks), [columns], [x])
    assert mx.allclose(gradient, unfold(x, **blocks), atol=1e-5)


REFUSED = {
    "kernel beyond the image": {"kernel_size": (9, 2)},
    "stride 0": {"kernel_size": 2, "stride": 0},
    "kernel 0": {"kernel_size": 0},
    "negative padding": {"kernel_size": 2, "padding": -1},
    "dilation 0": {"kernel_size": 2, "dilation": 0},
}


@pytest.mark.parametrize("blocks", REFUSED.values(), ids=REFUSED)
def test_unfold_refuses_what_torch_refuses(blocks: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError):
        F.unfold(torch.zeros(1, 2, *SIZES), **blocks)
    with pytest.raises(ValueError, match=r"\[unfold\]"):
        unfold(mx.zeros((1, *SIZES, 2)), **blocks)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 7, 9)], ids=["blocks", "elements"])
def test_fold_refuses_what_torch_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError):
        F.fold(torch.zeros(shape), (4, 4), 2)
    with pytest.raises(ValueError, match=r"\[fold\]"):
        fold(to_mlx(torch.zeros(shape)), (4, 4), 2)


@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_every_configuration(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    arguments = (kernel, dilation, padding, stride)
    x = torch.randint(-9, 9, (1, 2, *SIZES)).float()  # sums stay exact
    want = F.unfold(x, *arguments)
    got = unfold(to_mlx(x), *arguments)
    np.testing.assert_array_equal(np.array(got), want.movedim(1, -1).numpy())
    back = F.fold(want, SIZES, *arguments).movedim(1, -1)
    np.testing.assert_array_equal(np.array(fold(got, SIZES, *arguments)), back.numpy())
