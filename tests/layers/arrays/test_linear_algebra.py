"""Decompositions and inverses of matrices against torch in float64."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays import linear_algebra as ours

Fn = Callable[..., Any]

SHAPES = [(4, 4), (2, 3, 5, 5), (1, 1), (0, 3, 3), (0, 0)]


def square(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape) + 3 * torch.eye(shape[-1])


def definite(shape: tuple[int, ...]) -> torch.Tensor:
    x = square(shape)
    return x @ x.mT + torch.eye(shape[-1])


def mlx(x: torch.Tensor) -> mx.array:
    return mx.array(x.contiguous().numpy()) if x.numel() else mx.zeros(tuple(x.shape))


CASES: dict[str, tuple[Fn, Fn, Fn]] = {
    "inverse": (ours.inverse, torch.linalg.inv, square),
    "determinant": (ours.determinant, torch.linalg.det, square),
    "sign": (lambda x: ours.log_determinant(x)[0], lambda x: torch.linalg.slogdet(x)[0], square),
    "log": (lambda x: ours.log_determinant(x)[1], lambda x: torch.linalg.slogdet(x)[1], square),
    "cholesky": (ours.cholesky, torch.linalg.cholesky, definite),
    "cholesky upper": (
        lambda x: ours.cholesky(x, upper=True),
        lambda x: torch.linalg.cholesky(x, upper=True),
        definite,
    ),
    "cholesky inverse": (ours.cholesky_inverse, torch.cholesky_inverse, square),
    "cholesky inverse upper": (
        lambda x: ours.cholesky_inverse(x, True),
        lambda x: torch.cholesky_inverse(x, True),
        square,
    ),
    "eigenvalues": (lambda x: ours.eigh(x)[0], torch.linalg.eigvalsh, definite),
    "exponential": (ours.matrix_exponential, torch.linalg.matrix_exp, square),
    "pseudo-inverse of a triangle": (
        lambda x: ours.pseudo_inverse(x, hermitian=True),
        lambda x: torch.linalg.pinv(x, hermitian=True),
        square,
    ),
    "pseudo-inverse": (ours.pseudo_inverse, torch.linalg.pinv, square),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_square(name: str, shape: tuple[int, ...], assert_parity: Fn) -> None:
    function, theirs, make = CASES[name]
    x = make(shape)
    assert_parity(function(mlx(x)), theirs, x)


@pytest.mark.parametrize("shape", [(4, 2), (2, 4), (3, 5, 2), (0, 3), (3, 0)], ids=str)
def test_qr_and_pseudo_inverse(shape: tuple[int, ...], assert_parity: Fn) -> None:
    x = torch.randn(shape)
    for i, factor in enumerate(ours.qr(mlx(x))):
        assert_parity(factor, lambda x, i=i: torch.linalg.qr(x)[i], x)
    assert_parity(ours.pseudo_inverse(mlx(x)), torch.linalg.pinv, x)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shape", [(4, 2), (2, 4), (3, 5, 2)], ids=str)
def test_singular_values(shape: tuple[int, ...], full: bool, assert_parity: Fn) -> None:
    x = torch.randn(shape)
    u, s, vh = ours.svd(mlx(x), full)
    want = torch.linalg.svd(x, full_matrices=full)
    assert [y.shape for y in (u, s, vh)] == [tuple(y.shape) for y in want]
    assert_parity(s, torch.linalg.svdvals, x)
    assert_parity(ours.singular_values(mlx(x)), torch.linalg.svdvals, x)
    k = s.shape[-1]
    assert_parity((u[..., :k] * s[..., None, :]) @ vh[..., :k, :], lambda x: x, x)


@pytest.mark.parametrize("triangle", ["L", "U"])
def test_eigenvectors(triangle: str) -> None:
    x = definite((3, 4, 4))
    noise = torch.randn(3, 4, 4)
    given = x.tril() + noise.triu(1) if triangle == "L" else x.triu() + noise.tril(-1)
    values, vectors = (torch.tensor(np.array(y)) for y in ours.eigh(mlx(given), triangle))
    torch.testing.assert_close(vectors * values[:, None] @ vectors.mT, x, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (3, 4, 2)], ids=str)
def test_solve(shape: tuple[int, ...], assert_parity: Fn) -> None:
    a, b = square((3, 4, 4) if len(shape) == 3 else (4, 4)), torch.randn(shape)
    assert_parity(ours.solve(mlx(a), mlx(b)), torch.linalg.solve, a, b)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("upper", [False, True])
def test_triangular(upper: bool, left: bool, unit: bool, assert_parity: Fn) -> None:
    a, b = square((2, 4, 4)), torch.randn((2, 4, 3) if left else (2, 3, 4))

    def theirs(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a = a.triu() if upper else a.tril()
        return torch.linalg.solve_triangular(a, b, upper=upper, left=left, unitriangular=unit)

    got = ours.solve_triangular(mlx(a), mlx(b), upper, left, unit)
    assert_parity(got, theirs, a, b)


@pytest.mark.parametrize("upper", [False, True])
def test_cholesky_solve(upper: bool, assert_parity: Fn) -> None:
    b, factor = torch.randn(2, 4, 3), square((2, 4, 4))
    got = ours.cholesky_solve(mlx(b), mlx(factor), upper)
    assert_parity(got, lambda b, f: torch.cholesky_solve(b, f, upper), b, factor)


def test_what_is_not_positive_definite_gives_nan() -> None:
    good, bad = definite((3, 3)), torch.tensor([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])
    got = np.array(ours.cholesky(mlx(torch.stack([good, bad]))))
    assert np.isfinite(got[0]).all()
    assert np.isnan(got[1]).all()


def test_a_singular_matrix_raises() -> None:
    with pytest.raises(RuntimeError, match="Inverse"):
        mx.eval(ours.inverse(mx.zeros((2, 2))))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 5.0])
def test_exponential_at_scales(scale: float, assert_parity: Fn) -> None:
    x = scale * torch.randn(5, 4, 4)
    assert_parity(ours.matrix_exponential(mlx(x)), torch.linalg.matrix_exp, x)


@pytest.mark.parametrize("left", [True, False])
def test_solving_from_either_side(left: bool, assert_parity: Fn) -> None:
    a, b = square((2, 4, 4)), torch.randn(2, 4, 4)
    got = ours.solve(mlx(a), mlx(b), left=left)
    assert_parity(got, lambda a, b: torch.linalg.solve(a, b, left=left), a, b)


@pytest.mark.parametrize("upper", [False, True])
def test_codes_of_minors_that_are_not_positive(upper: bool) -> None:
    x = torch.eye(4).repeat(3, 1, 1)
    x[0, 2, 2], x[1, 0, 0] = -1, 0
    got = np.array(ours.cholesky_codes(mlx(x), upper=upper))
    assert got.tolist() == [3, 1, 0]


def test_exponential_beyond_reach_is_nan() -> None:
    assert np.isnan(np.array(ours.matrix_exponential(mx.full((2, 2), 1e6)))).all()


def test_tolerances_of_the_pseudo_inverse(assert_parity: Fn) -> None:
    x = torch.diag(torch.tensor([4.0, 2.0, 1.0, 1e-9]))
    for name, theirs in (("absolute", "atol"), ("relative", "rtol")):
        got = ours.pseudo_inverse(mlx(x), **{name: mx.array(0.3)})
        assert_parity(got, lambda x, t=theirs: torch.linalg.pinv(x, **{t: 0.3}), x)
    assert_parity(ours.pseudo_inverse(mlx(x)), torch.linalg.pinv, x)


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 5, 5), (0, 3, 3), (0, 0)], ids=str)
def test_square_roots(shape: tuple[int, ...]) -> None:
    x = definite(shape)
    root = np.array(ours.matrix_square_root(mlx(x.tril())))
    assert root.shape == shape
    np.testing.assert_allclose(root, root.swapaxes(-1, -2), atol=1e-5)
    np.testing.assert_allclose(root @ root, x.numpy(), rtol=1e-4, atol=1e-4)
    assert (np.linalg.eigvalsh(root) > 0).all()


def test_a_negative_eigenvalue_counts_as_zero() -> None:
    root = np.array(ours.matrix_square_root(mx.array([[4.0, 0.0], [0.0, -9.0]])))
    np.testing.assert_allclose(root, [[2, 0], [0, 0]], atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (2, 5, 3), (0, 4, 3), (0, 0)], ids=str)
def test_polar_factors(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    u, h = map(np.array, ours.polar_factors(mlx(x)))
    assert (u.shape, h.shape) == (shape, (*shape[:-2], shape[-1], shape[-1]))
    np.testing.assert_allclose(u @ h, x.numpy(), atol=1e-5)
    unit = np.broadcast_to(np.eye(shape[-1]), h.shape)
    np.testing.assert_allclose(u.swapaxes(-1, -2) @ u, unit, atol=1e-5)
    np.testing.assert_allclose(h, h.swapaxes(-1, -2), atol=1e-5)
    assert (np.linalg.eigvalsh(h) > -1e-5).all()
