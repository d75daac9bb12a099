"""Products of reflections against torch in float64."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays import householder as ours

Fn = Callable[..., Any]


def mlx(x: torch.Tensor) -> mx.array:
    return mx.array(x.contiguous().numpy())


@pytest.mark.parametrize("columns", [2, 4])
def test_columns_of_the_product(columns: int, assert_parity: Fn) -> None:
    x, scales = torch.randn(3, 4, columns), torch.rand(3, 2)
    got = ours.householder_product(mlx(x), mlx(scales))
    assert_parity(got, torch.linalg.householder_product, x, scales)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_the_product_with_another_matrix(left: bool, transpose: bool, assert_parity: Fn) -> None:
    x, scales = torch.geqrf(torch.randn(2, 4, 3))
    y = torch.randn(2, 4, 4)
    got = ours.reflect(mlx(x), mlx(scales), mlx(y), left=left, transpose=transpose)
    assert_parity(got, lambda x, s, y: torch.ormqr(x, s, y, left, transpose), x, scales, y)


@pytest.mark.parametrize("shape", [(4, 4), (2, 5, 3), (2, 3, 5)], ids=str)
def test_reflections_found_again(shape: tuple[int, ...], assert_parity: Fn) -> None:
    x = torch.randn(shape)
    packed, scales = ours.geqrf(mlx(x))
    assert_parity(packed, lambda x: torch.geqrf(x)[0], x)
    assert_parity(scales, lambda x: torch.geqrf(x)[1], x)


def test_a_zero_column_is_not_reflected() -> None:
    packed, scales = ours.geqrf(mx.zeros((3, 2)))
    assert np.array(packed).tolist() == np.zeros((3, 2)).tolist()
    assert np.array(scales).tolist() == [0.0, 0.0]
