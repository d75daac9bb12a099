"""Sample images and volumes at arbitrary points: PyTorch's ``grid_sample`` and ``affine_grid``."""

import math
from collections.abc import Sequence
from itertools import product

import mlx.core as mx

SAMPLING_MODES = ("bilinear", "nearest", "bicubic")
SAMPLING_PADDING_MODES = ("zeros", "border", "reflection")

# An index along one axis with its weight (None: one). Indices are floats of integral value.
WeightedIndex = tuple[mx.array, mx.array | None]


def grid_sample(
    x: mx.array,
    grid: mx.array,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> mx.array:
    """Sample ``x`` at the points of ``grid``; matches ``torch.nn.functional.grid_sample``.

    Coordinates and weights are computed in float32 for float16 and bfloat16 too. Points that are
    not finite get what PyTorch's float32 CPU kernels give them, which differs between 2-D and 3-D.

    Args:
        x: ``(N, H, W, C)`` or ``(N, D, H, W, C)``.
        grid: ``(N, H_out, W_out, 2)`` or ``(N, D_out, H_out, W_out, 3)``; the last axis holds
            ``(x, y)`` or ``(x, y, z)``, from -1 to 1 across the input.
        mode: ``"bilinear"`` (trilinear in 3-D), ``"nearest"`` or ``"bicubic"`` (2-D only).
        padding_mode: values outside of the input: ``"zeros"``, ``"border"`` or ``"reflection"``.
        align_corners: whether -1 and 1 are the centres of the outermost elements, not their edges.

    Returns:
        ``(N, H_out, W_out, C)`` or ``(N, D_out, H_out, W_out, C)`` in the dtype of ``x``.

    Raises:
        ValueError: the shapes do not fit together, a spatial axis is empty, or a mode is unknown.
    """
    _check(x, grid, mode, padding_mode)
    batch, *sizes, channels = x.shape
    if grid.size == 0:
        return mx.zeros((*grid.shape[:-1], channels), dtype=x.dtype)

    grid = grid.astype(mx.float32)
    axes = [
        _taps(grid[..., len(sizes) - 1 - axis], size, mode, padding_mode, align_corners, len(sizes))
        for axis, size in enumerate(sizes)
    ]
    rows = x.reshape(-1, channels)
    wide = mx.int64 if rows.shape[0] > 2**31 - 1 else mx.int32
    start = mx.arange(batch, dtype=wide).reshape(batch, *[1] * len(sizes)) * math.prod(sizes)
    total = mx.zeros((1,), dtype=mx.float32)
    for taps in product(*axes):
        total = total + _gather(rows, start, taps, sizes)
    return total.astype(x.dtype)


def _gather(
    rows: mx.array, start: mx.array, taps: Sequence[WeightedIndex], sizes: Sequence[int]
) -> mx.array:
    """Return the values at one index per axis, zero outside, times the product of its weights."""
    inside = mx.array(True)
    flat, weight = mx.array(0, dtype=start.dtype), mx.array(1.0)
    for (index, axis_weight), size in zip(taps, sizes, strict=True):
        valid = (index >= 0) & (index <= size - 1)  # false for NaN, which must not become an index
        inside = inside & valid
        index = mx.stop_gradient(mx.where(valid, index, 0))  # MLX differentiates by indices
        flat = flat * size + index.astype(start.dtype)
        weight = weight if axis_weight is None else weight * axis_weight
    if len(sizes) == 3:
        weight = mx.where(inside, weight, 0)  # in PyTorch NaN weights propagate in 2-D only
    value = mx.where(inside[..., None], mx.take(rows, start + flat, axis=0), 0)
    return value.astype(mx.float32) * weight[..., None]


def _taps(
    points: mx.array, size: int, mode: str, padding_mode: str, align_corners: bool, rank: int
) -> list[WeightedIndex]:
    """Return the elements of one axis that a point is interpolated from, with their weights."""

    def pad(position: mx.array) -> mx.array:
        return _pad(position, size, padding_mode, align_corners, rank)

    position = (points + 1) * ((size - 1) / 2) if align_corners else ((points + 1) * size - 1) / 2
    if mode == "nearest":
        return [(mx.round(pad(position)), None)]
    if mode == "bilinear":
        position = pad(position)
        low = mx.floor(position)
        return [(low, 1 - (position - low)), (low + 1, position - low)]
    low = mx.floor(position)
    return [
        (pad(low + offset), weight)
        for offset, weight in zip((-1, 0, 1, 2), _cubic_weights(position - low), strict=True)
    ]


def _pad(
    position: mx.array, size: int, padding_mode: str, align_corners: bool, rank: int
) -> mx.array:
    """Map positions outside of an axis to positions inside, by the padding mode."""
    if padding_mode == "zeros":
        return position
    if padding_mode == "reflection":
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        period = 2 * (high - low)
        if period == 0:
            return mx.zeros_like(position)
        away = mx.remainder(mx.abs(position - low), period)
        position = mx.minimum(away, period - away) + low
    position = mx.where(mx.isnan(position), 0 if rank == 2 else size - 1, position)
    return mx.clip(position, 0, size - 1)


def _cubic_weights(t: mx.array) -> list[mx.array]:
    """Return the weights of the four elements around a point: Keys' cubic kernel, a = -0.75."""
    a = -0.75

    def near(s: mx.array) -> mx.array:
        return ((a + 2) * s - (a + 3)) * s * s + 1

    def far(s: mx.array) -> mx.array:
        return ((a * s - 5 * a) * s + 8 * a) * s - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _check(x: mx.array, grid: mx.array, mode: str, padding_mode: str) -> None:
    faults = []
    rank = x.ndim - 2
    if mode not in SAMPLING_MODES:
        faults.append(f"'mode' must be one of {SAMPLING_MODES} but got {mode!r}")
    if padding_mode not in SAMPLING_PADDING_MODES:
        faults.append(
            f"'padding_mode' must be one of {SAMPLING_PADDING_MODES} but got {padding_mode!r}"
        )
    if rank not in (2, 3):
        faults.append(f"input must be (N, H, W, C) or (N, D, H, W, C) but got shape {x.shape}")
    elif grid.ndim != x.ndim or grid.shape[-1] != rank or grid.shape[0] != x.shape[0]:
        shape = f"({x.shape[0]}, {'D_out, ' * (rank == 3)}H_out, W_out, {rank})"
        faults.append(f"grid must be {shape} for an input of {x.shape} but got {grid.shape}")
    if rank == 3 and mode == "bicubic":
        faults.append(f"'bicubic' is for 2-D input only but got shape {x.shape}")
    if 0 in x.shape[1:-1]:
        faults.append(f"input must have no empty spatial axis but got shape {x.shape}")
    if faults:
        raise ValueError(f"[grid_sample] {'; '.join(faults)}.")


def affine_grid(theta: mx.array, size: Sequence[int], align_corners: bool = False) -> mx.array:
    """Return a regular grid of points under affine maps; as ``torch.nn.functional.affine_grid``.

    Args:
        theta: ``(N, 2, 3)`` or ``(N, 3, 4)``, one map per sample, from output to input points.
        size: output size in PyTorch's order, ``(N, C, H, W)`` or ``(N, C, D, H, W)``.
        align_corners: whether -1 and 1 are the centres of the outermost elements, not their edges.

    Returns:
        ``(N, H, W, 2)`` or ``(N, D, H, W, 3)``, as :func:`grid_sample` takes it.

    Raises:
        ValueError: ``theta`` is not a batch of maps of the size's rank.
    """
    rank = len(size) - 2
    if rank not in (2, 3) or tuple(theta.shape) != (size[0], rank, rank + 1):
        raise ValueError(
            f"[affine_grid] theta must be (N, 2, 3) for size (N, C, H, W) or (N, 3, 4) for "
            f"(N, C, D, H, W) but got {theta.shape} for {tuple(size)}."
        )
    spatial = tuple(size[2:])
    points = [
        mx.broadcast_to(_centres(n, align_corners).reshape(-1, *[1] * (rank - 1 - axis)), spatial)
        for axis, n in enumerate(spatial)
    ]
    # The last spatial axis is x, the first coordinate.
    base = mx.stack([*reversed(points), mx.ones(spatial)], axis=-1).reshape(-1, rank + 1)
    grid = base @ theta.astype(mx.float32).swapaxes(1, 2)
    return grid.reshape(size[0], *spatial, rank).astype(theta.dtype)


def _centres(count: int, align_corners: bool) -> mx.array:
    """Return the positions of the elements of an axis from -1 to 1."""
    if count <= 1:
        return mx.zeros((count,))
    ends = 1.0 if align_corners else (count - 1) / count
    return mx.linspace(-ends, ends, count)
