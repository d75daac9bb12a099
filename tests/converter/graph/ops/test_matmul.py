"""Products of matrices and vectors against torch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlxport.converter.graph.ir.context import Unsupported

HALVES = [torch.float16, torch.bfloat16]
SHAPES = [
    ((3,), (3,)),
    ((4, 3), (3, 5)),
    ((4, 3), (3,)),
    ((3,), (3, 5)),
    ((2, 4, 3), (3,)),
    ((3,), (2, 3, 5)),
    ((2, 4, 3), (3, 5)),
    ((4, 3), (2, 3, 5)),
    ((2, 4, 3), (2, 3, 5)),
    ((1, 4, 3), (2, 3, 5)),
    ((6, 2, 4, 3), (2, 3, 5)),
    ((6, 1, 4, 3), (1, 2, 3, 5)),
    ((2, 7, 6, 4, 3), (2, 7, 6, 3, 5)),
    ((0, 3), (3, 5)),
    ((4, 0), (0, 5)),
    ((0,), (0,)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES, ids=str)
def test_matmul(assert_op_parity, a, b):
    assert_op_parity(torch.matmul, torch.randn(a), torch.randn(b))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("a", "b"), SHAPES[:8], ids=str)
def test_matmul_in_half_precision(assert_op_parity, a, b, dtype):
    assert_op_parity(torch.matmul, torch.randn(a), torch.randn(b), dtype=dtype)


def test_matmul_of_axes_stored_elsewhere(assert_op_parity, lower_op):
    a, b = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 5, 6)
    orders = [(0, 2, 1, 3), (1, 0, 3, 2)]
    assert_op_parity(torch.matmul, a, b, orders=orders)
    same = lower_op(torch.matmul, a, b, orders=[(1, 0, 2, 3)] * 2)
    assert same.source == "a @ b"
    assert same.orders == [(1, 0, 2, 3)]


def test_only_the_operand_stored_otherwise_is_transposed(lower_op):
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    lowered = lower_op(torch.matmul, a, b, orders=[None, (0, 2, 1)])
    assert lowered.body == ["x1 = b.transpose(0, 2, 1)", "x2 = a @ x1"]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool], ids=str)
def test_integers_are_refused(lower_op, dtype):
    with pytest.raises(Unsupported, match=r"matrix product of .*: only floating-point"):
        lower_op(torch.matmul, torch.ones(2, 3, dtype=dtype), torch.ones(3, 2, dtype=dtype))


@pytest.mark.parametrize("fn", [torch.mm, torch.bmm, torch.mv, torch.dot, torch.vdot])
def test_named_products(assert_op_parity, fn):
    shapes = {
        torch.mm: ((4, 3), (3, 5)),
        torch.bmm: ((2, 4, 3), (2, 3, 5)),
        torch.mv: ((4, 3), (3,)),
        torch.dot: ((6,), (6,)),
        torch.vdot: ((6,), (6,)),
    }
    a, b = shapes[fn]
    assert_op_parity(fn, torch.randn(a), torch.randn(b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, *HALVES], ids=str)
def test_outer(assert_op_parity, dtype):
    a, b = (torch.randint(-9, 9, (n,)).to(dtype) for n in (3, 4))
    assert_op_parity(torch.outer, a, b)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("x", [(3,), (4, 3), (2, 4, 3), (2, 5, 4, 3), (0, 3)], ids=str)
def test_linear(assert_op_parity, x, bias):
    extra = (torch.randn(5),) if bias else ()
    assert_op_parity(F.linear, torch.randn(x), torch.randn(5, 3), *extra)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_linear_in_half_precision(assert_op_parity, dtype):
    assert_op_parity(F.linear, torch.randn(4, 3), torch.randn(5, 3), torch.randn(5), dtype=dtype)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
def test_linear_with_a_single_output(assert_op_parity, bias):
    extra = (torch.randn(()),) if bias else ()
    assert_op_parity(F.linear, torch.randn(2, 4, 3), torch.randn(3), *extra)


def test_linear_keeps_the_order_of_other_axes(lower_op):
    x, weight = torch.randn(2, 4, 5, 3), torch.randn(6, 3)
    lowered = lower_op(F.linear, x, weight, orders=[(0, 2, 1, 3), None])
    assert lowered.source == "a @ b.T"
    assert lowered.orders == [(0, 2, 1, 3)]


@pytest.mark.parametrize("alpha", [1, 0.5])
@pytest.mark.parametrize("beta", [1, 0, 2])
@pytest.mark.parametrize("bias", [(4, 5), (5,), (4, 1), (1,), ()], ids=str)
def test_addmm(assert_op_parity, bias, beta, alpha):
    def fn(c, a, b):
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)

    assert_op_parity(fn, torch.randn(bias), torch.randn(4, 3), torch.randn(3, 5))


def test_addmm_with_beta_zero_ignores_nan(assert_op_parity):
    def fn(c, a, b):
        return torch.addmm(c, a, b, beta=0)

    assert_op_parity(fn, torch.full((5,), torch.nan), torch.randn(4, 3), torch.randn(3, 5))


@pytest.mark.parametrize("alpha", [1, 0.5])
@pytest.mark.parametrize("beta", [1, 0, 2])
def test_baddbmm_and_addmv(assert_op_parity, beta, alpha):
    def batches(c, a, b):
        return torch.baddbmm(c, a, b, beta=beta, alpha=alpha)

    def vector(c, a, b):
        return torch.addmv(c, a, b, beta=beta, alpha=alpha)

    a, b = torch.randn(2, 4, 3), torch.randn(2, 3, 5)
    assert_op_parity(batches, torch.randn(2, 4, 5), a, b)
    assert_op_parity(batches, torch.randn(1, 5), a, b)
    assert_op_parity(vector, torch.randn(4), torch.randn(4, 3), torch.randn(3))


EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ba,cb", (2, 3), (4, 2)),
    ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("nctkv,kvw->nctw", (2, 3, 4, 2, 5), (2, 5, 5)),
    ("...ij,...jk->...ik", (2, 3, 4), (4, 5)),
    ("...i,i", (2, 3, 4), (4,)),
    ("i...,ij->j...", (2, 3, 4), (2, 5)),
    ("a...b,b...->a...", (2, 3, 4), (4, 3)),
    ("...a,...a->", (2, 3), (2, 3)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("ij->ji", (2, 3)),
    ("ij->", (2, 3)),
    ("i,j->ij", (2,), (3,)),
    (" i , j -> j i ", (2,), (3,)),
    ("Ab,bC", (2, 3), (3, 4)),
    ("a,ab,b->", (2,), (2, 3), (3,)),
    ("bn,anm,bm->ba", (2, 3), (4, 3, 5), (2, 5)),
    ("ab,bc->ac", (2, 1), (3, 4)),
    ("...a,...b->...ab", (4, 1, 2), (3, 2)),
]


@pytest.mark.parametrize(("equation", "shapes"), [(e, s) for e, *s in EQUATIONS], ids=str)
def test_einsum(assert_op_parity, equation, shapes):
    def fn(*tensors):
        return torch.einsum(equation, *tensors)

    assert_op_parity(fn, *(torch.randn(shape) for shape in shapes))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.data())
def test_any_einsum(assert_op_parity, data):
    sizes = dict(zip("abcde", (2, 3, 1, 4, 2), strict=True))
    letters = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True)
    inputs = data.draw(st.lists(letters, min_size=1, max_size=3))
    used = sorted({letter for letters in inputs for letter in letters})
    output = data.draw(st.lists(st.sampled_from(used), unique=True))
    equation = f"{','.join(map(''.join, inputs))}->{''.join(output)}"

    def fn(*tensors):
        return torch.einsum(equation, *tensors)

    tensors = [torch.randn([sizes[letter] for letter in letters]) for letters in inputs]
    orders = [tuple(data.draw(st.permutations(range(x.ndim)))) for x in tensors]
    assert_op_parity(fn, *tensors, orders=orders)


def test_einsum_of_nothing(assert_op_parity):
    x, y = torch.zeros(0, 0, 1), torch.ones(1, 1, 1)
    assert_op_parity(lambda x, y: torch.einsum("...ij,...jk->...i", x, y), x, y)
    assert_op_parity(lambda x, y: torch.einsum("bij,cjk->cik", x, y), torch.zeros(2, 3, 0), x.mT)


def test_einsum_letters_follow_the_axes(lower_op):
    def fn(a, b):
        return torch.einsum("bihd,bjhd->bhij", a, b)

    a, b = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5)
    lowered = lower_op(fn, a, b, orders=[(0, 2, 1, 3), None])
    assert lowered.source == 'mx.einsum("bhid,bjhd->bhij", a, b)'


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("lead", [(), (4,), (2, 4)], ids=str)
def test_bilinear(assert_op_parity, lead, bias):
    extra = (torch.randn(5),) if bias else ()
    a, b = torch.randn(*lead, 2), torch.randn(*lead, 3)
    assert_op_parity(F.bilinear, a, b, torch.randn(5, 2, 3), *extra)


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, 0.5, float("inf")])
@pytest.mark.parametrize(
    ("a", "b"), [((4, 3), (5, 3)), ((2, 4, 3), (5, 3)), ((4, 0), (5, 0)), ((30, 3), (40, 3))]
)
def test_cdist(assert_op_parity, a, b, p):
    def fn(x, y):
        return torch.cdist(x, y, p=p)

    assert_op_parity(fn, torch.randn(a), torch.randn(b))


@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (0, 1), (2.0, 0.5)])
def test_addbmm(assert_op_parity, beta, alpha):
    a, b, bias = torch.randn(3, 4, 5), torch.randn(3, 5, 6), torch.randn(4, 6)
    assert_op_parity(lambda c, a, b: torch.addbmm(c, a, b, beta=beta, alpha=alpha), bias, a, b)


@pytest.mark.parametrize("p", [0, 1, 2, 3.5, torch.inf])
def test_distances(assert_op_parity, p):
    x, y = torch.randn(2, 3, 4), torch.randn(3, 4)
    assert_op_parity(lambda x, y: torch.dist(x, y, p), x, y)
    assert_op_parity(lambda x: torch.nn.functional.pdist(x, p), y)
