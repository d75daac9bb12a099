"""Elements reduced into an array, put in by a mask, along a diagonal."""

import pytest
import torch


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_scatter_reduce(reduce, dim, include_self, assert_op_parity):
    def fn(x, indices, source):
        return x.scatter_reduce(dim, indices, source, reduce, include_self=include_self)

    x = torch.randn(3, 4, 5)
    indices = torch.randint(0, x.shape[dim], (2, 3, 4))
    assert_op_parity(fn, x, indices, torch.randn(3, 4, 5))


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("reduce", ["prod", "mean", "amax", "amin"])
def test_index_reduce(reduce, dim, assert_op_parity):
    source = torch.randn((2, 4, 5) if dim == 0 else (3, 2, 5))
    indices = torch.tensor([1, 0])
    assert_op_parity(
        lambda x, i, s: x.index_reduce(dim, i, s, reduce), torch.randn(3, 4, 5), indices, source
    )


@pytest.mark.parametrize("reduce", ["add", "multiply"])
def test_scatter_with_a_reduction(reduce, assert_op_parity):
    indices = torch.randint(0, 3, (2, 4))
    assert_op_parity(
        lambda x, i, s: torch.scatter(x, 0, i, s, reduce=reduce),
        torch.randn(3, 4),
        indices,
        torch.randn(2, 4),
    )


def test_masked_scatter(assert_op_parity):
    x, mask = torch.randn(2, 3, 4), torch.rand(2, 3, 4) < 0.5
    assert_op_parity(torch.masked_scatter, x, mask, torch.randn(30))
    assert_op_parity(torch.masked_scatter, x, torch.rand(3, 4) < 0.5, torch.randn(30))
    assert_op_parity(torch.masked_scatter, x, torch.rand(2, 2, 3, 4) < 0.5, torch.randn(60))


@pytest.mark.parametrize("offset", [0, 1, -2])
def test_diagonal(offset, assert_op_parity):
    def fn(x, source):
        y = x.clone()
        y.diagonal(offset, 0, 2).copy_(source)
        return y, torch.diagonal_scatter(x, source, offset, -1, 0)

    x = torch.randn(3, 2, 3)
    assert_op_parity(fn, x, torch.diagonal(x, offset, 0, 2).clone())


def test_put(assert_op_parity):
    x, places, source = torch.randn(2, 3), torch.tensor([0, -1]), torch.randn(2)
    assert_op_parity(torch.put, x, places, source)
    assert_op_parity(lambda *a: torch.put(*a, accumulate=True), x, torch.tensor([1, 1]), source)


@pytest.mark.parametrize("reduce", ["sum", "prod", "amax", "mean"])
def test_0d_arrays(reduce, assert_op_parity):
    one, i = torch.tensor(1.5), torch.tensor(0)
    assert_op_parity(lambda x, i: x.scatter_reduce(0, i, x + 1, reduce), one, i)
    if reduce != "sum":
        assert_op_parity(lambda x, i: x.index_reduce(0, i, x + 1, reduce), one, i)
