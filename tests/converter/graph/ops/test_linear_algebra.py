"""Decompositions and inverses of matrices against torch."""

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported


def square(*shape):
    return torch.randn(*shape) + 3 * torch.eye(shape[-1])


def definite(*shape):
    x = square(*shape)
    return x @ x.mT


CASES = {
    "inv": torch.linalg.inv,
    "inv_ex": torch.linalg.inv_ex,
    "inverse": torch.inverse,
    "det": torch.linalg.det,
    "slogdet": torch.linalg.slogdet,
    "logdet": lambda x: torch.logdet(x @ x.mT),
    "solve vector": lambda x: torch.linalg.solve(x, x[..., 0]),
    "solve matrix": lambda x: torch.linalg.solve(x, x @ x),
    "cholesky": lambda x: torch.linalg.cholesky(x @ x.mT),
    "cholesky upper": lambda x: torch.linalg.cholesky(x @ x.mT, upper=True),
    "cholesky_inverse": torch.cholesky_inverse,
    "cholesky_solve": lambda x: torch.cholesky_solve(x[..., :2], x, upper=True),
    "triangular": lambda x: torch.linalg.solve_triangular(x.triu(), x, upper=True),
    "triangular right": lambda x: torch.linalg.solve_triangular(
        x.tril(), x, upper=False, left=False, unitriangular=True
    ),
    "qr": torch.linalg.qr,
    "svdvals": torch.linalg.svdvals,
    "eigvalsh": lambda x: torch.linalg.eigvalsh(x @ x.mT, UPLO="U"),
    "solve from the right": lambda x: torch.linalg.solve(x, x[..., :2, :], left=False),
    "solve_ex": lambda x: torch.linalg.solve_ex(x, x),
    "cholesky_ex": lambda x: torch.linalg.cholesky_ex(x @ x.mT),
    "matrix_exp": torch.linalg.matrix_exp,
    "pinv": torch.linalg.pinv,
    "pinv hermitian": lambda x: torch.linalg.pinv(x, hermitian=True),
    "matrix_norm": lambda x: torch.linalg.matrix_norm(x, 2),
    "nuclear": lambda x: torch.linalg.matrix_norm(x, "nuc"),
    "cond": torch.linalg.cond,
    "matrix_power": lambda x: torch.linalg.matrix_power(x, -2),
    "tensorinv": lambda x: torch.linalg.tensorinv(x[0], ind=1),
}
if hasattr(torch.linalg, "polar"):  # both are new in torch 2.14
    CASES["matrix_sqrth"] = lambda x: torch.linalg.matrix_sqrth((x @ x.mT).tril())
    CASES["polar"] = torch.linalg.polar
    CASES["polar of tall matrices"] = lambda x: torch.linalg.polar(x[..., :2])


@pytest.mark.parametrize("name", CASES)
def test_values(name, assert_op_parity):
    assert_op_parity(CASES[name], square(2, 4, 4))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: (lambda u, s, v: u * s[..., None, :] @ v)(
            *torch.linalg.svd(x, full_matrices=False)
        ),
        lambda x: (lambda w, v: v * w[..., None, :] @ v.mT)(*torch.linalg.eigh(x @ x.mT)),
    ],
    ids=["svd", "eigh"],
)
def test_factors_give_the_matrix_again(fn, assert_op_parity):
    assert_op_parity(fn, square(2, 4, 4))


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda x: torch.linalg.qr(x[..., :2], "complete"), "complete"),
        (lambda x: torch.ops.aten._linalg_solve_ex(x, x)[1], "results 1 to 2"),
        (lambda x: torch.ops.aten._linalg_det(x)[1], "more than the first 1"),
        (torch.linalg.eigvals, "not unique"),
    ],
    ids=["qr", "solve", "det", "eig"],
)
def test_refused(fn, why, lower_op):
    with pytest.raises(Unsupported, match=why):
        lower_op(fn, definite(2, 4, 4))


@pytest.mark.parametrize("upper", [False, True])
def test_which_minor_is_not_positive(upper, assert_op_parity):
    x = torch.eye(4).repeat(3, 1, 1)
    x[0, 2, 2], x[1, 0, 0] = -1, 0
    assert_op_parity(lambda x: torch.linalg.cholesky_ex(x, upper=upper).info, x)


@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 3), (2, 3, 0)], ids=str)
@pytest.mark.parametrize(
    "fn",
    [
        torch.linalg.svdvals,
        torch.linalg.svd,
        lambda x: torch.linalg.svd(x, full_matrices=False),
    ],
    ids=["values", "full", "reduced"],
)
def test_singular_values_of_nothing(fn, shape, assert_op_parity):
    assert_op_parity(fn, torch.zeros(shape))
