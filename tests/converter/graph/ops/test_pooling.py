"""Pooling against torch."""

import pytest
import torch
import torch.nn.functional as F

from mlxport.converter.graph.ir.context import Unsupported

SIZES = (8, 7, 6)
HALVES = [torch.float16, torch.bfloat16]
RANKS = [1, 2, 3]
MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
ADAPTIVE_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
ADAPTIVE_AVG = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}

WINDOWS = {
    "plain": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
    "ceiling": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
}
MAX_WINDOWS = {**WINDOWS, "dilated": {"kernel_size": 2, "stride": 1, "dilation": 2}}
AVG_WINDOWS = {
    **WINDOWS,
    "edges alone": {"kernel_size": 3, "padding": 1, "count_include_pad": False},
}


def volume(rank, *lead):
    return torch.randn(*(lead or (2, 3)), *SIZES[:rank])


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("window", MAX_WINDOWS.values(), ids=MAX_WINDOWS)
def test_max_pool(assert_op_parity, window, rank):
    assert_op_parity(lambda x: MAX[rank](x, **window), volume(rank))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("window", MAX_WINDOWS.values(), ids=MAX_WINDOWS)
def test_max_pool_with_indices(assert_op_parity, window, rank):
    assert_op_parity(lambda x: MAX[rank](x, **window, return_indices=True), volume(rank))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("window", AVG_WINDOWS.values(), ids=AVG_WINDOWS)
def test_avg_pool(assert_op_parity, window, rank):
    assert_op_parity(lambda x: AVG[rank](x, **window), volume(rank))


@pytest.mark.parametrize("rank", [2, 3])
def test_divisor_override(assert_op_parity, rank):
    assert_op_parity(lambda x: AVG[rank](x, 2, divisor_override=3), volume(rank))


@pytest.mark.parametrize("kind", [MAX, AVG], ids=["max", "avg"])
def test_a_setting_per_axis(assert_op_parity, kind):
    def fn(x):
        return kind[3](x, (1, 2, 3), (1, 2, 1), (0, 1, 1))

    assert_op_parity(fn, volume(3))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", [MAX, AVG, ADAPTIVE_AVG, ADAPTIVE_MAX])
def test_without_batch(assert_op_parity, kind, rank):
    assert_op_parity(lambda x: kind[rank](x, 2), volume(rank, 3))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("kind", [ADAPTIVE_AVG, ADAPTIVE_MAX], ids=["avg", "max"])
def test_adaptive_pool(assert_op_parity, kind, size, rank):
    assert_op_parity(lambda x: kind[rank](x, size), volume(rank))


@pytest.mark.parametrize("kind", [ADAPTIVE_AVG, ADAPTIVE_MAX], ids=["avg", "max"])
def test_adaptive_pool_that_keeps_axes(assert_op_parity, kind):
    assert_op_parity(lambda x: kind[3](x, (None, 1, 2)), volume(3))


@pytest.mark.parametrize("rank", RANKS)
def test_adaptive_max_pool_with_indices(assert_op_parity, rank):
    assert_op_parity(lambda x: ADAPTIVE_MAX[rank](x, 3, return_indices=True), volume(rank))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", [MAX, AVG, ADAPTIVE_AVG, ADAPTIVE_MAX])
def test_half_precision(assert_op_parity, kind, dtype):
    assert_op_parity(lambda x: kind[2](x, 2), volume(2), dtype=dtype)


def test_max_pool_of_integers(assert_op_parity):
    assert_op_parity(lambda x: F.max_pool2d(x, 2), torch.randint(-9, 9, (1, 2, 4, 4)))


def test_nan(assert_op_parity):
    x = volume(3)
    x[0, 0, 1, 1, 1] = torch.nan
    assert_op_parity(lambda x: (F.max_pool3d(x, 2), F.avg_pool3d(x, 2)), x)


@pytest.mark.parametrize(
    ("fn", "source"),
    [
        (lambda x: F.max_pool3d(x, 2), "max_pool(a, (2, 2, 2))"),
        (lambda x: F.max_pool3d(x, 3, 2, 1), "max_pool(a, (3, 3, 3), stride=2, padding=1)"),
        (lambda x: F.avg_pool3d(x, (1, 2, 2)), "avg_pool(a, (1, 2, 2))"),
        (lambda x: F.adaptive_avg_pool3d(x, 1), "adaptive_avg_pool(a, (1, 1, 1))"),
    ],
)
def test_what_is_emitted(lower_op, fn, source):
    lowered = lower_op(fn, volume(3), orders=[(0, 2, 3, 4, 1)])
    assert lowered.source == source
    assert lowered.orders == [(0, 2, 3, 4, 1)]


def test_averages_of_integers_are_refused(lower_op):
    with pytest.raises(Unsupported, match=r"pooling of torch\.int64"):
        lower_op(lambda x: F.avg_pool2d(x, 2), torch.ones(1, 1, 4, 4, dtype=torch.int64))


def test_fewer_sizes_than_axes_are_refused(lower_op):
    with pytest.raises(Unsupported, match="one per spatial axis"):
        lower_op(lambda x: torch.ops.aten.max_pool3d(x, [2]), volume(3))


@pytest.mark.parametrize("rank", [2, 3])
def test_fractional(assert_op_parity, rank):
    pool = (
        torch.ops.aten.fractional_max_pool2d if rank == 2 else torch.ops.aten.fractional_max_pool3d
    )
    samples = torch.rand(2, 3, rank)
    x = torch.randn(2, 3, *(9,) * rank)
    assert_op_parity(lambda x, s: pool(x, [2] * rank, [4] * rank, s), x, samples)
