"""Rows of a table against torch."""

import pytest
import torch
import torch.nn.functional as F

from mlxport.converter.graph.ir.context import Unsupported


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


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize(
    "options",
    [{}, {"include_last_offset": True}, {"padding_idx": 2}],
    ids=["plain", "last offset", "padding"],
)
def test_bags(assert_op_parity, mode, options):
    offsets = torch.tensor([0, 2, 2, 5, 6] if "include_last_offset" in options else [0, 2, 2, 5])

    def fn(indices, weight):
        return F.embedding_bag(indices, weight, offsets, mode=mode, **options)

    assert_op_parity(fn, torch.tensor([1, 2, 2, 0, 6, 3]), torch.randn(7, 5))


def test_bags_of_one_size_and_weights(assert_op_parity):
    indices, weight, factors = torch.randint(0, 7, (3, 4)), torch.randn(7, 5), torch.rand(3, 4)
    assert_op_parity(lambda i, w: F.embedding_bag(i, w), indices, weight)
    assert_op_parity(
        lambda i, w, f: F.embedding_bag(i, w, mode="sum", per_sample_weights=f),
        indices,
        weight,
        factors,
    )


def test_what_a_bag_keeps_for_its_gradient_is_refused(lower_op):
    with pytest.raises(Unsupported, match="first 1 results"):
        lower_op(lambda i, w: torch.embedding_bag(w, i, i)[2], torch.tensor([0]), torch.rand(3, 2))
