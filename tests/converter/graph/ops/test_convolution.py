"""Convolutions with weights of no layer against torch."""

import pytest
import torch
import torch.nn.functional as F

from mlxport.converter.graph.ir.context import Unsupported

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
HALVES = [torch.float16, torch.bfloat16]
SIZES = (6, 5, 7)


def tensors(rank, inputs, outputs, kernel, *, batch=(2,), bias=True):
    """Input, weight and, where asked for, bias; inputs and outputs as the weight counts them."""
    x = torch.randn(*batch, inputs, *SIZES[:rank])
    weight = torch.randn(outputs, inputs, *kernel[:rank])
    return [x, weight, *([torch.randn(outputs)] if bias else [])]


CONV_SETTINGS = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2, "padding": 2},
    "same": {"padding": "same", "dilation": 2},
    "valid": {"padding": "valid"},
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("settings", CONV_SETTINGS.values(), ids=CONV_SETTINGS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv(assert_op_parity, rank, settings, bias):
    def fn(*args):
        return CONV[rank](*args, **settings)

    assert_op_parity(fn, *tensors(rank, 4, 3, (3, 2, 3), bias=bias))


@pytest.mark.parametrize("rank", [2, 3])
def test_conv_with_a_setting_per_axis(assert_op_parity, rank):
    def fn(x, weight):
        stride, padding, dilation = (1, 2, 3)[:rank], (2, 0, 1)[:rank], (2, 1, 1)[:rank]
        return CONV[rank](x, weight, None, stride, padding, dilation)

    assert_op_parity(fn, *tensors(rank, 4, 3, (3, 2, 1), bias=False))


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_grouped_conv(assert_op_parity, rank, groups):
    def fn(x, weight, bias):
        return CONV[rank](x, weight, bias, padding=1, groups=groups)

    x = torch.randn(2, 4, *SIZES[:rank])
    weight = torch.randn(8, 4 // groups, *[3] * rank)
    assert_op_parity(fn, x, weight, torch.randn(8))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_without_batch(assert_op_parity, rank):
    assert_op_parity(CONV[rank], *tensors(rank, 4, 3, (3, 2, 3), batch=()))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("fn", [F.conv3d, F.conv_transpose3d])
def test_half_precision(assert_op_parity, fn, dtype):
    assert_op_parity(fn, *tensors(3, 3, 3, (3, 2, 3)), dtype=dtype)


TRANSPOSED_SETTINGS = {
    "plain": {},
    "doubling": {"stride": 2, "padding": 1, "output_padding": 1},
    "dilated": {"dilation": 2},
    "padding beyond the kernel": {"stride": 4, "padding": 4, "output_padding": 3},
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("settings", TRANSPOSED_SETTINGS.values(), ids=TRANSPOSED_SETTINGS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose(assert_op_parity, rank, settings, bias):
    def fn(x, weight, *bias):
        return TRANSPOSED[rank](x, weight, *bias, **settings)

    x, weight = torch.randn(2, 3, *SIZES[:rank]), torch.randn(3, 4, *(3, 2, 3)[:rank])
    assert_op_parity(fn, x, weight, *([torch.randn(4)] if bias else []))


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_grouped_conv_transpose(assert_op_parity, rank, groups):
    def fn(x, weight, bias):
        return TRANSPOSED[rank](x, weight, bias, 2, 1, 1, groups)

    x, weight = torch.randn(2, 4, *SIZES[:rank]), torch.randn(4, 3, *[3] * rank)
    assert_op_parity(fn, x, weight, torch.randn(3 * groups))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose_without_batch(assert_op_parity, rank):
    x, weight = torch.randn(3, *SIZES[:rank]), torch.randn(3, 4, *[2] * rank)
    assert_op_parity(TRANSPOSED[rank], x, weight)


@pytest.mark.parametrize("transposed", [False, True], ids=["conv", "transposed"])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution(assert_op_parity, groups, transposed):
    def fn(x, weight, bias):
        sizes = [2, 1, 2], [1, 0, 1], [1, 1, 1]
        extra = [1, 0, 1] if transposed else [0, 0, 0]
        return torch.ops.aten.convolution(x, weight, bias, *sizes, transposed, extra, groups)

    weight = (4, 2, 3, 2, 3) if transposed else (2, 4 // groups, 3, 2, 3)
    outputs = 2 * groups if transposed else 2
    assert_op_parity(fn, torch.randn(2, 4, *SIZES), torch.randn(weight), torch.randn(outputs))


def test_weight_is_asked_for_in_the_layout_of_mlx(lower_op):
    conv = lower_op(F.conv3d, *tensors(3, 4, 3, (3, 2, 3), bias=False), parameters=[1])
    assert conv.demands["args_1"] == [(0, 2, 3, 4, 1)]
    x, weight = torch.randn(2, 3, *SIZES), torch.randn(3, 4, 2, 2, 2)
    transposed = lower_op(F.conv_transpose3d, x, weight, parameters=[1])
    assert transposed.demands["args_1"] == [(1, 2, 3, 4, 0)]


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ({}, "mx.conv3d(a, b)"),
        ({"stride": (2, 2, 2), "padding": 1}, "mx.conv3d(a, b, stride=2, padding=1)"),
        ({"padding": (1, 0, 1)}, "mx.conv3d(a, b, padding=(1, 0, 1))"),
        ({"padding": "same"}, 'conv(a, b, padding="same")'),
    ],
    ids=str,
)
def test_what_is_emitted(lower_op, settings, source):
    def fn(x, weight):
        return F.conv3d(x, weight, **settings)

    orders = [(0, 2, 3, 4, 1)] * 2
    lowered = lower_op(fn, *tensors(3, 4, 3, (3, 2, 3), bias=False), orders=orders)
    assert lowered.source == source
    assert lowered.orders == [(0, 2, 3, 4, 1)]


@pytest.mark.parametrize("fn", [F.conv2d, F.conv_transpose2d])
def test_integers_are_refused(lower_op, fn):
    x, weight = torch.ones(1, 2, 4, 4).long(), torch.ones(2, 2, 3, 3).long()
    with pytest.raises(Unsupported, match=r"convolution of torch.int64: only floating-point"):
        lower_op(fn, x, weight)
