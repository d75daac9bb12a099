"""Padding against torch."""

import pytest
import torch
import torch.nn.functional as F

SHAPE = (2, 3, 6, 5, 7)
WIDTHS = {
    "last axis": (1, 2),
    "two axes": (1, 2, 0, 3),
    "three axes": (1, 2, 0, 3, 2, 0),
    "cropping": (-1, 2, 1, -2),
}
MODES = ["reflect", "replicate", "circular"]


@pytest.mark.parametrize("value", [None, 0.0, 2.5, float("-inf")])
@pytest.mark.parametrize("widths", [*WIDTHS.values(), (1, 0) * 5], ids=str)
def test_constant(assert_op_parity, widths, value):
    assert_op_parity(lambda x: F.pad(x, widths, value=value), torch.randn(SHAPE))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_other_modes(assert_op_parity, mode, rank):
    widths = (1, 2, 0, 3, 2, 0)[: 2 * rank]
    assert_op_parity(lambda x: F.pad(x, widths, mode), torch.randn(SHAPE[: rank + 2]))


@pytest.mark.parametrize("mode", MODES)
def test_other_modes_that_crop(assert_op_parity, mode):
    assert_op_parity(lambda x: F.pad(x, (-1, 2, 1, -2), mode), torch.randn(2, 3, 6, 5))


@pytest.mark.parametrize("mode", MODES[:2])
def test_without_batch(assert_op_parity, mode):
    assert_op_parity(lambda x: F.pad(x, (1, 2, 2, 1), mode), torch.randn(3, 6, 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool], ids=str)
@pytest.mark.parametrize("value", [0, 1])
def test_dtypes(assert_op_parity, dtype, value):
    x = torch.randint(0, 2, (2, 3)).to(dtype)
    assert_op_parity(lambda x: F.pad(x, (1, 2), value=value), x)


def test_empty(assert_op_parity):
    assert_op_parity(lambda x: F.pad(x, (1, 2)), torch.zeros(2, 0))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["reflection", "replication"])
def test_native_ops(assert_op_parity, kind, rank):
    native = getattr(torch.ops.aten, f"{kind}_pad{rank}d")
    assert_op_parity(lambda x: native(x, [1, 2] * rank), torch.randn(SHAPE[: rank + 2]))


def test_constant_pad_nd(assert_op_parity):
    assert_op_parity(lambda x: torch.constant_pad_nd(x, (1, 2), 3), torch.randn(2, 3))


@pytest.mark.parametrize(
    ("widths", "options", "source"),
    [
        ((1, 2), {}, "mx.pad(a, [(0, 0), (1, 2), (0, 0)])"),
        ((1, 2), {"value": 1}, "mx.pad(a, [(0, 0), (1, 2), (0, 0)], constant_values=1.0)"),
        ((1, 2), {"mode": "replicate"}, 'mx.pad(a, [(0, 0), (1, 2), (0, 0)], mode="edge")'),
        ((-1, 2), {}, "pad(a, [(0, 0), (-1, 2), (0, 0)])"),
    ],
)
def test_what_is_emitted(lower_op, widths, options, source):
    x = torch.randn(2, 3, 5)
    lowered = lower_op(lambda x: F.pad(x, widths, **options), x, orders=[(0, 2, 1)])
    assert lowered.source == source
    assert lowered.orders == [(0, 2, 1)]


def test_no_padding_is_no_op(lower_op):
    lowered = lower_op(lambda x: F.pad(x, (0, 0, 0, 0)), torch.randn(2, 3))
    assert lowered.body == []
