"""LU decompositions against torch in float64."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays import lu as ours

Fn = Callable[..., Any]


def mlx(x: torch.Tensor) -> mx.array:
    return mx.array(x.contiguous().numpy())


@pytest.mark.parametrize("columns", [2, 4, 5])
def test_factors_and_pivots(columns: int, assert_parity: Fn) -> None:
    x = torch.randn(3, 4, columns)
    packed, pivots = ours.lu_factor(mlx(x))
    assert_parity(packed, lambda x: torch.linalg.lu_factor(x)[0], x)
    assert torch.equal(torch.tensor(np.array(pivots)), torch.linalg.lu_factor(x)[1])


@pytest.mark.parametrize("columns", [2, 4, 5])
def test_three_factors_give_the_matrix_again(columns: int) -> None:
    x = torch.randn(3, 4, columns)
    p, lower, upper = ours.lu(mlx(x))
    assert np.allclose(np.array(p @ lower @ upper), x.numpy(), atol=1e-5)
    for factor, theirs in zip((p, lower, upper), torch.linalg.lu(x), strict=True):
        assert np.allclose(np.array(factor), theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "x",
    [torch.eye(3)[[2, 0, 1]], torch.diag(torch.tensor([2.0, 0.0, 0.0])), torch.zeros(2, 0, 3)],
    ids=["regular", "singular", "empty"],
)
def test_error_codes(x: torch.Tensor) -> None:
    want = torch.linalg.lu_factor_ex(x).info
    packed = torch.linalg.lu_factor_ex(x).LU
    got = torch.tensor(np.array(ours.lu_codes(mlx(packed))))
    torch.testing.assert_close(got, want)


def test_rows_of_pivots_are_exchanged_in_turn() -> None:
    # 0 with 2, then 1 with 2, then 2 with 3
    assert ours.rows_of_pivots(mx.array([3, 3, 4]), 4).tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_solving(left: bool, adjoint: bool, assert_parity: Fn) -> None:
    a, b = torch.randn(2, 4, 4) + 3 * torch.eye(4)[[2, 0, 3, 1]], torch.randn(2, 4, 4)
    got = ours.lu_solve(*ours.lu_factor(mlx(a)), mlx(b), left=left, adjoint=adjoint)

    def theirs(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        packed, pivots = torch.linalg.lu_factor(a)
        return torch.linalg.lu_solve(packed, pivots, b, left=left, adjoint=adjoint)

    assert_parity(got, theirs, a, b)
