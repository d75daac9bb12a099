"""Resizing and sampling against torch."""

import pytest
import torch
import torch.nn.functional as F

from mlxport.converter.graph.ir.context import Unsupported
from mlxport.converter.graph.ops.resampling import ANTIALIASED, NEAREST, SMOOTH

SIZES = (4, 5, 3)
HALVES = [torch.float16, torch.bfloat16]
MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "trilinear": (3,),
    "bicubic": (2,),
    "area": (1, 2, 3),
}
CASES = [(mode, rank) for mode, ranks in MODES.items() for rank in ranks]
SMOOTH_CASES = [(mode, rank) for mode, rank in CASES if "linear" in mode or "cubic" in mode]


def volume(rank):
    return torch.randn(2, 3, *SIZES[:rank])


@pytest.mark.parametrize("factor", [2, 3, 0.5, 1.5, 1.7])
@pytest.mark.parametrize(("mode", "rank"), CASES)
def test_by_a_factor(assert_op_parity, mode, rank, factor):
    def fn(x):
        return F.interpolate(x, scale_factor=factor, mode=mode)

    assert_op_parity(fn, volume(rank))


@pytest.mark.parametrize("size", [(8, 10, 6), (7, 3, 3), (1, 9, 5)], ids=str)
@pytest.mark.parametrize(("mode", "rank"), CASES)
def test_to_a_size(assert_op_parity, mode, rank, size):
    def fn(x):
        return F.interpolate(x, size=size[:rank], mode=mode)

    assert_op_parity(fn, volume(rank))


@pytest.mark.parametrize("target", [{"scale_factor": 2}, {"size": 7}], ids=str)
@pytest.mark.parametrize(("mode", "rank"), SMOOTH_CASES)
def test_aligned_corners(assert_op_parity, mode, rank, target):
    def fn(x):
        return F.interpolate(x, **target, mode=mode, align_corners=True)

    assert_op_parity(fn, volume(rank))


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize(("mode", "rank"), [("nearest", 3), ("trilinear", 3)])
def test_a_factor_per_axis(assert_op_parity, mode, rank, recompute):
    def fn(x):
        factors = (2.0, 1.3, 0.7)
        return F.interpolate(x, scale_factor=factors, mode=mode, recompute_scale_factor=recompute)

    assert_op_parity(fn, volume(rank))


@pytest.mark.parametrize("factor", [2, 0.5, 0.6])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialiased(assert_op_parity, mode, factor):
    def fn(x):
        return F.interpolate(x, scale_factor=factor, mode=mode, antialias=True)

    assert_op_parity(fn, torch.randn(1, 2, 8, 9))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
def test_half_precision(assert_op_parity, mode, dtype):
    def fn(x):
        return F.interpolate(x, scale_factor=2, mode=mode)

    assert_op_parity(fn, volume(3), dtype=dtype)


def test_nearest_of_bytes(assert_op_parity):
    x = torch.randint(0, 255, (1, 2, 4, 5), dtype=torch.uint8)
    assert_op_parity(lambda x: F.interpolate(x, size=(7, 7)), x)


@pytest.mark.parametrize("named", [True, False], ids=["named", "positional"])
@pytest.mark.parametrize("factor", [None, 1.7])
@pytest.mark.parametrize("name", [*NEAREST, *SMOOTH, *ANTIALIASED])
def test_default_overloads(assert_op_parity, name, factor, named):
    packet = getattr(torch.ops.aten, name.removeprefix("aten."))
    rank = int(name.removesuffix("_aa")[-2])
    size = [int(n * (factor or 2)) for n in SIZES[:rank]]
    scales = ["scales"] if rank == 1 else [f"scales_{axis}" for axis in "dhw"[3 - rank :]]

    def fn(x):
        align = () if name in NEAREST else (False,)
        if factor is None:
            return packet.default(x, size, *align)
        if named:
            return packet.default(x, size, *align, **dict.fromkeys(scales, factor))
        return packet.default(x, size, *align, *[factor] * rank)

    assert_op_parity(fn, volume(rank))


@pytest.mark.parametrize(
    ("options", "source"),
    [
        ({"scale_factor": 2}, "interpolate(a, scale_factor=2)"),
        ({"scale_factor": (1, 2, 2)}, "interpolate(a, scale_factor=(1, 2, 2))"),
        (
            {"size": (4, 5, 6), "mode": "trilinear", "align_corners": True},
            'interpolate(a, size=(4, 5, 6), mode="trilinear", align_corners=True)',
        ),
    ],
)
def test_what_is_emitted(lower_op, options, source):
    lowered = lower_op(lambda x: F.interpolate(x, **options), volume(3), orders=[(0, 2, 3, 4, 1)])
    assert lowered.source == source
    assert lowered.orders == [(0, 2, 3, 4, 1)]


def test_smooth_modes_of_integers_are_refused(lower_op):
    x = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(Unsupported, match=r"bilinear interpolation of torch\.uint8"):
        lower_op(lambda x: F.interpolate(x, size=8, mode="bilinear"), x)


GRID_CASES = [
    (2, mode, padding)
    for mode in ("bilinear", "nearest", "bicubic")
    for padding in ("zeros", "border", "reflection")
] + [(3, "bilinear", "zeros"), (3, "nearest", "border"), (3, "bilinear", "reflection")]


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize(("rank", "mode", "padding"), GRID_CASES)
def test_grid_sample(assert_op_parity, rank, mode, padding, align_corners):
    def fn(x, grid):
        return F.grid_sample(x, grid, mode, padding, align_corners)

    grid = (torch.rand(2, *(3, 4, 5)[:rank], rank) * 2 - 1) * 1.5
    assert_op_parity(fn, volume(rank), grid)


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("rank", [2, 3])
def test_affine_grid(assert_op_parity, rank, align_corners):
    def fn(theta):
        return F.affine_grid(theta, [2, 1, *SIZES[:rank]], align_corners)

    assert_op_parity(fn, torch.randn(2, rank, rank + 1))
