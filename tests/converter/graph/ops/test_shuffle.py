"""Moves between channels and space against torch."""

import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize("lead", [(2,), (), (2, 3)], ids=str)
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle(assert_op_parity, factor, lead, dtype):
    x = torch.randint(-99, 99, (*lead, 2 * factor**2, 3, 4)).to(dtype)
    assert_op_parity(lambda x: F.pixel_shuffle(x, factor), x)


@pytest.mark.parametrize("lead", [(2,), (), (2, 3)], ids=str)
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_unshuffle(assert_op_parity, factor, lead):
    x = torch.randn(*lead, 2, 3 * factor, 4 * factor)
    assert_op_parity(lambda x: F.pixel_unshuffle(x, factor), x)


@pytest.mark.parametrize("sizes", [(5,), (5, 4), (5, 4, 3)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_channel_shuffle(assert_op_parity, groups, sizes):
    assert_op_parity(lambda x: F.channel_shuffle(x, groups), torch.randn(2, 6, *sizes))


BLOCKS = {
    "plain": {"kernel_size": 2},
    "strided": {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1},
    "dilated": {"kernel_size": 2, "dilation": (2, 1)},
}


@pytest.mark.parametrize("lead", [(2,), ()], ids=["batch", "no batch"])
@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)
def test_unfold(assert_op_parity, blocks, lead):
    assert_op_parity(lambda x: F.unfold(x, **blocks), torch.randn(*lead, 3, 5, 6))


@pytest.mark.parametrize("lead", [(2,), ()], ids=["batch", "no batch"])
@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)
def test_fold(assert_op_parity, blocks, lead):
    columns = F.unfold(torch.randn(*lead, 3, 5, 6), **blocks)
    assert_op_parity(lambda x: F.fold(x, (5, 6), **blocks), columns)


def test_what_is_emitted(lower_op):
    x = torch.randn(1, 8, 3, 4)
    lowered = lower_op(lambda x: F.pixel_shuffle(x, 2), x, orders=[(0, 2, 3, 1)])
    assert lowered.source == "pixel_shuffle(a, 2)"
    assert lowered.orders == [(0, 2, 3, 1)]
    columns = lower_op(lambda x: F.unfold(x, 2), x, orders=[(0, 2, 3, 1)])
    assert columns.source == "unfold(a, (2, 2))"
    assert columns.orders == [(0, 2, 1)]
