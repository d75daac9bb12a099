"""`layers.resampling` against torch: nearest neighbours equal, the rest close to float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers.spatial.resampling import Upsample, interpolate, resample

LAST = {1: (0, 2, 1), 2: (0, 2, 3, 1), 3: (0, 2, 3, 4, 1)}
SMOOTH = [(1, "linear"), (2, "bilinear"), (3, "trilinear"), (2, "bicubic")]
NEAREST = ["nearest", "nearest-exact"]
ALL = [*SMOOTH, *((rank, mode) for rank in (1, 2, 3) for mode in (*NEAREST, "area"))]
SHAPE = (7, 6, 5)

TARGETS = {
    "double": {"scale_factor": 2},
    "triple": {"scale_factor": 3},
    "quadruple": {"scale_factor": 4.0},
    "by 2.3": {"scale_factor": 2.3},
    "by 2.3, recomputed": {"scale_factor": 2.3, "recompute_scale_factor": True},
    "by 0.6": {"scale_factor": 0.6},
    "halve": {"scale_factor": 0.5},
    "hardly at all": {"scale_factor": 1.05},
    "mixed": {"scale_factor": (2.0, 0.5, 1.3)},
    "grow to a size": {"size": (13, 8, 12)},
    "shrink to a size": {"size": (4, 3, 2)},
    "one element": {"size": 1},
    "same size": {"size": SHAPE},
    "multiple as a size": {"size": (14, 18, 5)},
}


def to_mlx(x: torch.Tensor) -> mx.array:
    return mx.array(x.movedim(1, -1).contiguous())


def picture(rank: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, *SHAPE[:rank]).to(dtype)


def for_rank(target: dict[str, Any], rank: int) -> dict[str, Any]:
    return {k: v[:rank] if isinstance(v, tuple) else v for k, v in target.items()}


@pytest.mark.parametrize(("rank", "mode"), ALL)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_matches_torch(
    assert_parity: Callable[..., None], rank: int, mode: str, target: dict[str, Any]
) -> None:
    x, target = picture(rank), for_rank(target, rank)
    y = interpolate(to_mlx(x), mode=mode, **target)
    assert_parity(y, lambda x: F.interpolate(x, mode=mode, **target), x, order=LAST[rank])


@pytest.mark.parametrize(("rank", "mode"), SMOOTH)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_aligned_corners(
    assert_parity: Callable[..., None], rank: int, mode: str, target: dict[str, Any]
) -> None:
    x = picture(rank)
    options = {"mode": mode, "align_corners": True, **for_rank(target, rank)}
    y = interpolate(to_mlx(x), **options)
    assert_parity(y, lambda x: F.interpolate(x, **options), x, order=LAST[rank])


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_antialias(
    assert_parity: Callable[..., None], mode: str, align_corners: bool, target: dict[str, Any]
) -> None:
    x = picture(2)
    options = {"mode": mode, "align_corners": align_corners, "antialias": True}
    options |= for_rank(target, 2)
    y = interpolate(to_mlx(x), **options)
    assert_parity(y, lambda x: F.interpolate(x, **options), x, order=LAST[2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rank", "mode"), [m for m in ALL if m != (3, "area")])  # not in torch
@pytest.mark.parametrize("scale_factor", [2, 1.7])
def test_half_precision(
    assert_parity: Callable[..., None],
    rank: int,
    mode: str,
    scale_factor: float,
    dtype: torch.dtype,
) -> None:
    x = picture(rank, dtype)
    options = {"mode": mode, "scale_factor": scale_factor}
    y = interpolate(to_mlx(x), **options)
    assert_parity(y, lambda x: F.interpolate(x, **options), x, order=LAST[rank])


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize(("rank", "mode"), SMOOTH)
def test_half_precision_is_rounded_once(rank: int, mode: str, dtype: mx.Dtype) -> None:
    x = to_mlx(picture(rank)).astype(dtype)
    for target in TARGETS["double"], TARGETS["by 2.3"]:
        wide = interpolate(x.astype(mx.float32), mode=mode, **target)
        assert mx.array_equal(interpolate(x, mode=mode, **target), wide.astype(dtype))


@pytest.mark.parametrize(("rank", "mode"), SMOOTH)
@pytest.mark.parametrize("factor", [2.1, 1.1, 3.2])
def test_a_factor_that_gives_a_multiple_without_being_one(
    assert_parity: Callable[..., None], rank: int, mode: str, factor: float
) -> None:
    x = torch.randn(1, 2, *[4] * rank)
    y = interpolate(to_mlx(x), scale_factor=factor, mode=mode)
    assert y.shape[1] % 4 == 0
    reference = torch.nn.Upsample(scale_factor=factor, mode=mode)
    assert_parity(y, reference, x, order=LAST[rank])


def ramp(rank: int, axis: int, size: int) -> torch.Tensor:
    """An input whose values are the indices of one spatial axis."""
    shape = [1] * rank
    shape[axis] = size
    return torch.arange(float(size)).reshape(1, 1, *shape)


def assert_same_elements(x: torch.Tensor, **options: Any) -> None:
    want = F.interpolate(x, **options).movedim(1, -1).numpy()
    np.testing.assert_array_equal(np.array(interpolate(to_mlx(x), **options)), want)


@pytest.mark.parametrize("mode", NEAREST)
@pytest.mark.parametrize("size", [1, 2, 7, 8, 21, 64])
def test_nearest_of_every_size_is_exact(mode: str, size: int) -> None:
    for count in range(1, 65):  # every other size stands in test_resampling_axes.py
        assert_same_elements(ramp(1, 0, size), size=count, mode=mode)


FACTORS = [0.3, 1 / 3, 0.5, 0.7, 0.9, 1.05, 1.1, 1.5, 1.99, 2, 2.0000001, 2.05, 3.3, 7, 41, 49]


@pytest.mark.parametrize("mode", NEAREST)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("factor", FACTORS)
def test_nearest_by_every_factor_is_exact(mode: str, rank: int, factor: float) -> None:
    for size in (4, 5, 7, 16, 31, 64):
        factors = (factor, 1.0, 1.0)[:rank]
        assert_same_elements(ramp(rank, 0, size), scale_factor=factors, mode=mode)


@given(
    size=st.integers(1, 64),
    count=st.integers(1, 160),
    other=st.integers(1, 160),
    axis=st.integers(0, 2),
    mode=st.sampled_from(NEAREST),
)
def test_nearest_in_images_and_volumes_is_exact(
    size: int, count: int, other: int, axis: int, mode: str
) -> None:
    for rank in (2, 3):
        counts = [other, 2, 3][:rank]
        counts[axis % rank] = count
        assert_same_elements(ramp(rank, axis % rank, size), size=counts, mode=mode)


@given(
    size=st.integers(1, 40),
    count=st.integers(1, 60),
    mode=st.sampled_from(SMOOTH),
    align_corners=st.booleans(),
)
def test_smooth_for_every_size(
    assert_parity: Callable[..., None],
    size: int,
    count: int,
    mode: tuple[int, str],
    align_corners: bool,
) -> None:
    rank, name = mode
    x = torch.randn(1, 2, *(size, 2, 3)[:rank])
    options = {"size": (count, 3, 5)[:rank], "mode": name, "align_corners": align_corners}
    y = interpolate(to_mlx(x), **options)
    assert_parity(y, lambda x: F.interpolate(x, **options), x, order=LAST[rank])


@given(
    size=st.integers(1, 40),
    factor=st.floats(0.1, 5.0),
    mode=st.sampled_from([*SMOOTH, (1, "area")]),
)
def test_smooth_for_every_factor(
    assert_parity: Callable[..., None], size: int, factor: float, mode: tuple[int, str]
) -> None:
    rank, name = mode
    x = torch.randn(1, 2, *(size, 3, 2)[:rank])
    options = {"scale_factor": (factor, 2.0, 1.0)[:rank], "mode": name}
    if int(size * factor) < 1:
        if name == "area":
            assert interpolate(to_mlx(x), **options).size == F.interpolate(x, **options).numel()
            return
        with pytest.raises(RuntimeError):
            F.interpolate(x, **options)
        with pytest.raises(ValueError, match="must be positive"):
            interpolate(to_mlx(x), **options)
        return
    y = interpolate(to_mlx(x), **options)
    assert_parity(y, lambda x: F.interpolate(x, **options), x, order=LAST[rank])


@pytest.mark.parametrize(("rank", "mode"), ALL)
@pytest.mark.parametrize(
    "target", [TARGETS["double"], TARGETS["by 2.3"], TARGETS["halve"]], ids=str
)
def test_gradients(
    assert_parity: Callable[..., None], rank: int, mode: str, target: dict[str, Any]
) -> None:
    x = picture(rank)
    weights = torch.randn_like(F.interpolate(x, mode=mode, **target))

    def reference(x: torch.Tensor) -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        (F.interpolate(leaf, mode=mode, **target) * weights).sum().backward()
        return leaf.grad

    def loss(x: mx.array) -> mx.array:
        return (interpolate(x, mode=mode, **target) * to_mlx(weights)).sum()

    assert_parity(mx.grad(loss)(to_mlx(x)), reference, x, order=LAST[rank])


@pytest.mark.parametrize("mode", NEAREST)
@pytest.mark.parametrize("dtype", [mx.uint8, mx.int32, mx.bool_], ids=str)
def test_nearest_takes_every_dtype(mode: str, dtype: mx.Dtype) -> None:
    x = mx.array([[[0], [1], [2]]]).astype(dtype)
    y = interpolate(x, size=5, mode=mode)
    assert y.dtype == dtype
    want = F.interpolate(ramp(1, 0, 3), size=5, mode=mode).movedim(1, -1).numpy()
    assert mx.array_equal(y, mx.array(want).astype(dtype))


@pytest.mark.parametrize(("rank", "mode"), ALL)
@pytest.mark.parametrize("special", [np.nan, np.inf], ids=str)
def test_special_values_spread_no_further_than_their_neighbours(
    rank: int, mode: str, special: float
) -> None:
    x = picture(rank)
    x[(0, 0, *[3] * rank)] = special
    y = np.array(interpolate(to_mlx(x), scale_factor=2, mode=mode))
    want = F.interpolate(x, scale_factor=2, mode=mode).movedim(1, -1).numpy()
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(want))


def test_an_axis_that_keeps_its_size_keeps_its_infinity() -> None:
    x = mx.array([[[1.0], [np.inf], [2.0]]])
    assert mx.array_equal(interpolate(x, size=3, mode="linear"), x)


def test_resample_takes_sizes_with_the_factors_they_came_from(
    assert_parity: Callable[..., None],
) -> None:
    x = picture(2)
    y = resample(to_mlx(x), (16, 8), "bilinear", scales=(2.3, None))
    assert_parity(
        y,
        lambda x: torch.ops.aten.upsample_bilinear2d.default(x, (16, 8), False, 2.3, None),
        x,
        order=LAST[2],
    )


def test_compiles() -> None:
    x = mx.random.normal((1, 5, 6, 7, 2))

    def chain(x: mx.array) -> mx.array:
        return interpolate(interpolate(x, scale_factor=2, mode="trilinear"), size=(9, 3, 4))

    assert mx.allclose(mx.compile(chain)(x), chain(x))


def test_layer_is_the_function(assert_parity: Callable[..., None]) -> None:
    x = picture(3)
    layer = Upsample(scale_factor=(2, 1.5, 1), mode="trilinear", align_corners=True)
    reference = torch.nn.Upsample(scale_factor=(2, 1.5, 1), mode="trilinear", align_corners=True)
    assert_parity(layer(to_mlx(x)), reference, x, order=LAST[3])
    assert layer.parameters() == {}


REFUSED = {
    "neither size nor factor": {},
    "size and factor": {"size": 3, "scale_factor": 2},
    "align_corners of nearest": {"size": 3, "align_corners": False},
    "align_corners of area": {"size": 3, "mode": "area", "align_corners": True},
    "another rank's mode": {"size": 3, "mode": "trilinear"},
    "1-D mode": {"size": 3, "mode": "linear"},
    "unknown mode": {"size": 3, "mode": "sinc"},
    "antialias of nearest": {"size": 3, "antialias": True},
    "too many sizes": {"size": (3, 3, 3)},
    "too few factors": {"scale_factor": (2.0,)},
    "size and recompute": {"size": 3, "recompute_scale_factor": True},
    "nothing left": {"scale_factor": 0.1},
    "size 0": {"size": 0},
    "negative factor": {"scale_factor": -1.0},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_refuses_what_torch_refuses(options: dict[str, Any]) -> None:
    x = torch.randn(1, 2, 5, 5)
    with pytest.raises((ValueError, NotImplementedError, RuntimeError)):
        F.interpolate(x, **options)
    with pytest.raises(ValueError, match=r"\[interpolate\]"):
        interpolate(to_mlx(x), **options)


def test_refuses_whole_numbers_in_smooth_modes() -> None:
    with pytest.raises(ValueError, match="floating"):
        interpolate(mx.zeros((1, 4, 4, 1), dtype=mx.uint8), size=3, mode="bilinear")


def test_refuses_input_without_spatial_axes() -> None:
    with pytest.raises(ValueError, match="3 to 5 dimensions"):
        interpolate(mx.zeros((4, 4)), size=(), mode="nearest")
