"""grid_sample and affine_grid against torch in float64."""

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers.spatial.grid_sample import (
    SAMPLING_MODES,
    SAMPLING_PADDING_MODES,
    affine_grid,
    grid_sample,
)

MODES_3D = [mode for mode in SAMPLING_MODES if mode != "bicubic"]
CASES = [(2, mode, pad) for mode in SAMPLING_MODES for pad in SAMPLING_PADDING_MODES] + [
    (3, mode, pad) for mode in MODES_3D for pad in SAMPLING_PADDING_MODES
]
DTYPES = {"float32": (torch.float32, mx.float32), "float16": (torch.float16, mx.float16)}


def to_mlx(x: torch.Tensor, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.array(x.to(torch.float64).numpy().astype(np.float32)).astype(dtype)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1).contiguous()


def sample_both(x: torch.Tensor, grid: torch.Tensor, **options: object) -> tuple[np.ndarray, ...]:
    """What MLX gives and what torch gives in float64, both channels-last."""
    got = grid_sample(to_mlx(channels_last(x)), to_mlx(grid), **options)
    want = channels_last(F.grid_sample(x.double(), grid.double(), **options)).numpy()
    assert got.shape == want.shape
    return np.array(got), want


def points(*shape: int, reach: float = 1.6) -> torch.Tensor:
    """Points, some of them outside, none so close to a tie that float32 rounds it over."""
    return (torch.rand(shape) * 2 - 1) * reach


def assert_close(got: np.ndarray, want: np.ndarray, relative: float = 3e-6) -> None:
    assert np.linalg.norm(got - want) <= relative * np.linalg.norm(want)


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize(("rank", "mode", "padding_mode"), CASES)
def test_matches_torch(rank: int, mode: str, padding_mode: str, align_corners: bool) -> None:
    x = torch.randn(2, 3, *(5, 6, 7)[:rank])
    grid = points(2, *(4, 3, 5)[:rank], rank)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    assert_close(*sample_both(x, grid, **options))


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize(("rank", "mode", "padding_mode"), CASES)
def test_far_outside(rank: int, mode: str, padding_mode: str, align_corners: bool) -> None:
    x = torch.randn(1, 2, *(4, 3, 5)[:rank])
    grid = points(1, *(4, 3, 5)[:rank], rank, reach=30.0)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    assert_close(*sample_both(x, grid, **options), relative=3e-5)


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("padding_mode", SAMPLING_PADDING_MODES)
@pytest.mark.parametrize("rank", [2, 3])
def test_nearest_rounds_half_to_even(rank: int, padding_mode: str, align_corners: bool) -> None:
    x = torch.randn(1, 1, *[5] * rank)
    halves = torch.arange(-4, 16) / 2
    line = (halves / 2 - 1) if align_corners else ((2 * halves + 1) / 8 - 1)
    if not align_corners:
        x = x[..., :4]  # a size of 4 makes the points exact
    grid = torch.zeros(1, *[1] * (rank - 1), len(line), rank)
    grid[..., 0] = line
    options = {"mode": "nearest", "padding_mode": padding_mode, "align_corners": align_corners}
    got, want = sample_both(x, grid, **options)
    np.testing.assert_array_equal(got, want.astype(np.float32))


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("point", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    ("rank", "mode", "padding_mode"), [case for case in CASES if case[1] != "bicubic"]
)
def test_points_that_are_not_finite(
    rank: int, mode: str, padding_mode: str, point: float, axis: int, align_corners: bool
) -> None:
    x = torch.randn(1, 2, *[5] * rank)
    grid = points(1, *[3] * rank, rank)
    grid.view(-1, rank)[::2, axis] = point
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    got, want = sample_both(x, grid, **options)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize(("rank", "mode"), [(2, "bilinear"), (3, "bilinear"), (2, "nearest")])
def test_values_outside_are_not_read(rank: int, mode: str, value: float) -> None:
    x = torch.zeros(1, 1, *[3] * rank)
    x[..., 0] = value
    grid = torch.full((1, *[1] * rank, rank), -3.0)
    got, want = sample_both(x, grid, mode=mode, padding_mode="zeros", align_corners=True)
    np.testing.assert_array_equal(got, want)
    assert not got.any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("rank", [2, 3])
def test_half_precision_is_as_close_as_torch(rank: int, dtype: str) -> None:
    x = torch.randn(1, 3, *[6] * rank).to(getattr(torch, dtype))
    grid = points(1, *[5] * rank, rank, reach=1.0).to(getattr(torch, dtype))
    want = channels_last(F.grid_sample(x.double(), grid.double(), align_corners=False)).numpy()
    torch_own = channels_last(F.grid_sample(x, grid, align_corners=False)).double().numpy()
    kind = getattr(mx, dtype)
    got = grid_sample(to_mlx(channels_last(x), kind), to_mlx(grid, kind))
    assert got.dtype == kind
    ours = np.array(got.astype(mx.float32))
    assert np.linalg.norm(ours - want) <= 2 * np.linalg.norm(torch_own - want)


@given(
    rank=st.sampled_from([2, 3]),
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    batch=st.integers(0, 3),
    channels=st.integers(1, 3),
    mode=st.sampled_from(MODES_3D),
    padding_mode=st.sampled_from(SAMPLING_PADDING_MODES),
    align_corners=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_configuration(
    rank: int,
    sizes: tuple[int, ...],
    batch: int,
    channels: int,
    mode: str,
    padding_mode: str,
    align_corners: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(batch, channels, *sizes[:rank])
    grid = points(batch, *sizes[-rank:], rank, reach=2.5)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    assert_close(*sample_both(x, grid, **options), relative=2e-5)


@pytest.mark.parametrize("rank", [2, 3])
def test_gradients(rank: int) -> None:
    x = torch.randn(1, 2, *[4] * rank, dtype=torch.float64, requires_grad=True)
    grid = points(1, *[3] * rank, rank).double().requires_grad_()
    (F.grid_sample(x, grid, align_corners=False) ** 2).sum().backward()

    def loss(x: mx.array, grid: mx.array) -> mx.array:
        return (grid_sample(x, grid) ** 2).sum()

    arrays = to_mlx(channels_last(x.detach())), to_mlx(grid.detach())
    dx, dgrid = mx.grad(loss, argnums=(0, 1))(*arrays)
    assert_close(np.array(dx), channels_last(x.grad).numpy(), relative=1e-5)
    assert_close(np.array(dgrid), grid.grad.numpy(), relative=1e-5)


@pytest.mark.parametrize(
    ("x", "grid", "options", "message"),
    [
        ((1, 4, 4, 1), (1, 2, 2, 3), {}, r"grid must be \(1, H_out, W_out, 2\)"),
        ((2, 4, 4, 1), (1, 2, 2, 2), {}, "grid must be"),
        ((1, 4, 1), (1, 2, 1), {}, "input must be"),
        ((1, 0, 4, 1), (1, 2, 2, 2), {}, "no empty spatial axis"),
        ((1, 4, 4, 4, 1), (1, 2, 2, 2, 3), {"mode": "bicubic"}, "2-D input only"),
        ((1, 4, 4, 1), (1, 2, 2, 2), {"mode": "area", "padding_mode": "edge"}, "'area'.*'edge'"),
    ],
)
def test_refuses(
    x: tuple[int, ...], grid: tuple[int, ...], options: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        grid_sample(mx.zeros(x), mx.zeros(grid), **options)


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid:UserWarning")
@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("spatial", [(3, 4), (1, 5), (2, 3, 4), (1, 1, 1)], ids=str)
def test_affine_grid(spatial: tuple[int, ...], align_corners: bool) -> None:
    rank = len(spatial)
    theta = torch.randn(2, rank, rank + 1)
    size = (2, 7, *spatial)
    want = F.affine_grid(theta.double(), list(size), align_corners=align_corners)
    got = affine_grid(to_mlx(theta), size, align_corners)
    assert got.shape == tuple(want.shape)
    assert_close(np.array(got), want.numpy())


@pytest.mark.parametrize("theta", [(1, 3, 4), (2, 2, 3), (2, 3)])
def test_affine_grid_refuses(theta: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="theta must be"):
        affine_grid(mx.zeros(theta), (1, 1, 4, 4))
