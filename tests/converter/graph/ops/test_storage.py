"""Strides, bits and copies of views."""

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported


def test_as_strided(assert_op_parity):
    assert_op_parity(lambda x: torch.as_strided(x, (3, 2, 4), (5, 1, 2), 3), torch.randn(4, 2, 4))
    assert_op_parity(lambda x: torch.as_strided(x, (2, 0), (5, 1)), torch.randn(4, 2))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: torch.as_strided(x.mT, (2, 2), (1, 1)),
        lambda x: torch.as_strided(x[1:], (2, 2), (1, 1)),
        lambda x: torch.as_strided(x[:1], (2, 2), (1, 1)),
    ],
    ids=["transposed", "behind the start", "a part"],
)
def test_strides_of_views_are_refused(fn, lower_op):
    with pytest.raises(Unsupported, match="view of another"):
        lower_op(fn, torch.randn(4, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.uint8, torch.int64], ids=str)
def test_bits(dtype, assert_op_parity):
    bits = torch.randn(2, 3, 4).view(torch.int32)
    assert_op_parity(lambda x: x.view(dtype), bits)
    if dtype == torch.float32:
        assert_op_parity(lambda x: x.view(dtype), bits[0, 0, 0])


def test_bits_of_bools_are_refused(lower_op):
    with pytest.raises(Unsupported, match="bits of"):
        lower_op(lambda x: x.view(torch.uint8), torch.ones(3) > 0)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: torch.view_copy(x, (3, 8)),
        lambda x: torch.permute_copy(x, (2, 0, 1)),
        lambda x: torch.expand_copy(x[None], (2, 2, 3, 4)),
        lambda x: torch.transpose_copy(x, 0, 2),
        lambda x: torch.unsqueeze_copy(x, 1),
        lambda x: torch.squeeze_copy(x[:1]),
        lambda x: torch.narrow_copy(x, 1, -2, 2),
        lambda x: torch.as_strided_copy(x, (2, 2), (3, 1)),
    ],
)
def test_copies(fn, assert_op_parity):
    assert_op_parity(fn, torch.randn(2, 3, 4))
