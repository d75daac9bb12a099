"""Rows of a table against torch."""

import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 3, 4), (0, 3)], ids=str)
def test_embedding(assert_op_parity, shape, dtype):
    indices = torch.randint(0, 7, shape).to(dtype)
    assert_op_parity(F.embedding, indices, torch.randn(7, 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(assert_op_parity, dtype):
    assert_op_parity(F.embedding, torch.tensor([3, 0]), torch.randn(7, 5), dtype=dtype)


@pytest.mark.parametrize("options", [{"padding_idx": 2}, {"padding_idx": -1}, {"sparse": True}])
def test_what_concerns_gradients_changes_nothing(assert_op_parity, options):
    def fn(indices, weight):
        return F.embedding(indices, weight, **options)

    assert_op_parity(fn, torch.arange(7), torch.randn(7, 5))


def test_what_is_emitted(lower_op):
    indices, weight = torch.zeros(2, 3, dtype=torch.int64), torch.randn(7, 5)
    lowered = lower_op(F.embedding, indices, weight, orders=[(1, 0), None])
    assert lowered.source == "b[a]"
    assert lowered.orders == [(1, 0, 2)]
