"""Elements picked by an index, and NaN where it leads nowhere."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlxport.layers.arrays.picking import take_along_axis_or_nan

X = mx.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize("dtype", [mx.int8, mx.uint8, mx.int32, mx.uint64, mx.int64], ids=str)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_as_take_along_axis(axis: int, dtype: mx.Dtype) -> None:
    index = mx.array([[1, 0, 1], [0, 1, 0]], dtype=dtype)
    assert (
        take_along_axis_or_nan(X, index, axis).tolist()
        == mx.take_along_axis(X, index, axis).tolist()
    )


def test_out_of_range() -> None:
    got = take_along_axis_or_nan(X, mx.array([[2, 3], [-1, -3]]), axis=1)
    assert mx.isnan(got).tolist() == [[False, True], [True, True]]
    assert got[0, 0].item() == 3


def test_gradients_reach_what_is_picked_alone() -> None:
    index = mx.array([[2, 3], [-1, 1]])
    gradient = mx.grad(
        lambda x: mx.where(index < 0, 0, take_along_axis_or_nan(x, index, 1))[:, 0].sum()
    )(X)
    assert gradient.tolist() == [[0, 0, 1], [0, 0, 0]]
