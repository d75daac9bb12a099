"""LU decompositions and Householder reflections against torch."""

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

SHAPES = [(4, 4), (2, 5, 3), (3, 2, 3, 5), (1, 1), (2, 0, 3), (0, 0)]
SQUARE = [(4, 4), (2, 3, 5, 5)]


def matrices(shape):
    x = torch.randn(shape)
    if x.numel():
        x = x + 3 * torch.eye(*shape[-2:])
        return x[..., torch.randperm(shape[-2]), :]  # so that rows are exchanged
    return x


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "fn",
    [
        torch.linalg.lu_factor,
        torch.linalg.lu_factor_ex,
        torch.linalg.lu,
        lambda x: torch.lu_unpack(*torch.linalg.lu_factor(x)),
        torch.geqrf,
    ],
    ids=["lu_factor", "lu_factor_ex", "lu", "lu_unpack", "geqrf"],
)
def test_decompositions(fn, shape, assert_op_parity):
    assert_op_parity(fn, matrices(shape))


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("shape", SQUARE, ids=str)
def test_solving_by_a_decomposition(shape, left, adjoint, assert_op_parity):
    def fn(x, b):
        packed, pivots = torch.linalg.lu_factor(x)
        return torch.linalg.lu_solve(packed, pivots, b, left=left, adjoint=adjoint)

    columns = torch.randn(*shape[:-1], 2)
    assert_op_parity(fn, matrices(shape), columns if left else columns.mT.contiguous())


def test_the_older_lu_solve(assert_op_parity):
    packed, pivots = torch.linalg.lu_factor(matrices((2, 4, 4)))
    columns = torch.randn(2, 4, 3)
    assert_op_parity(lambda b, p: torch.lu_solve(b, p, pivots), columns, packed)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("upper", [False, True])
def test_triangular_solve(upper, transpose, assert_op_parity):
    x = matrices((2, 4, 4)) + 5 * torch.eye(4)
    assert_op_parity(
        lambda b, x: torch.triangular_solve(b, x, upper=upper, transpose=transpose),
        torch.randn(2, 4, 3),
        x,
    )


def test_where_the_upper_triangle_has_a_zero(assert_op_parity):
    x = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, 0.0, 0.0])), torch.zeros(3, 3)])
    assert_op_parity(lambda x: torch.linalg.lu_factor_ex(x).info, x)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("shape", [(4, 4), (2, 5, 3), (2, 3, 5)], ids=str)
def test_products_of_reflections(shape, left, transpose, assert_op_parity):
    x, scales = torch.geqrf(matrices(shape))
    columns = torch.randn(*shape[:-1], 2)

    def fn(x, scales, y):
        return torch.ormqr(x, scales, y, left, transpose)

    assert_op_parity(fn, x, scales, columns if left else columns.mT.contiguous())


@pytest.mark.parametrize("shape", [(4, 4), (2, 5, 3)], ids=str)
def test_columns_of_such_a_product(shape, assert_op_parity):
    assert_op_parity(torch.linalg.householder_product, *torch.geqrf(matrices(shape)))


def test_a_column_that_needs_no_reflection(assert_op_parity):
    assert_op_parity(torch.geqrf, torch.randn(4, 4).triu())


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda x: torch.lu_unpack(x, torch.ones(4).int(), unpack_data=False)[0], "unpack both"),
        (lambda x: torch.ops.aten.linalg_lu(x.half())[0], "half precision"),
    ],
    ids=["pivots alone", "half"],
)
def test_refused(fn, why, lower_op):
    with pytest.raises(Unsupported, match=why):
        lower_op(fn, matrices((4, 4)))
