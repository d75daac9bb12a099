"""Resize spatial axes as ``torch.nn.functional.interpolate`` does, channels last.

``mlx.nn.Upsample`` has no ``size`` and no area mode. At factors that are no integers its nearest
neighbours are those of PyTorch's ``"nearest-exact"``, not ``"nearest"``. Its linear and cubic modes
differ where factor times size is no integer, and its cubic mode returns wrong elements for some
sizes. Here the axes are resized one after another.
"""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.norm.statistics import upcast
from mlxport.layers.pooling.adaptive import adaptive_avg_pool
from mlxport.layers.spatial.resampling_axes import (
    Tap,
    antialiased_taps,
    cubic_taps,
    linear_taps,
    nearest_indices,
)
from mlxport.layers.windows.geometry import ints_per_axis
from mlxport.layers.windows.windows import slice_axis, take_on_axis

NEAREST_MODES = ("nearest", "nearest-exact")
# The number of spatial axes each of these names stands for.
SMOOTH_MODES = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}
INTERPOLATION_MODES = (*NEAREST_MODES, *SMOOTH_MODES, "area")


def interpolate(
    x: mx.array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> mx.array:
    """Resize the spatial axes; matches ``torch.nn.functional.interpolate``.

    Args:
        x: ``(N, L, C)``, ``(N, H, W, C)`` or ``(N, D, H, W, C)``; floating except for the nearest
            modes. float16 and bfloat16 are computed in float32.
        size: of the output, one number for all axes or one for each.
        scale_factor: in place of ``size``; the output has ``int(size * scale_factor)`` elements,
            and positions are computed from the factor itself.
        mode: ``"nearest"``, ``"nearest-exact"``, ``"area"``, or ``"linear"`` (1-D),
            ``"bilinear"``, ``"bicubic"`` (2-D), ``"trilinear"`` (3-D).
        align_corners: whether the centres of the outermost elements are aligned, not their edges;
            for the linear and cubic modes only.
        recompute_scale_factor: compute positions from the sizes instead of from the factor.
        antialias: widen the kernel when downsampling; for ``"bilinear"`` and ``"bicubic"``.

    Returns:
        ``(N, *size, C)`` in the dtype of ``x``.

    Raises:
        ValueError: the arguments contradict each other or the shape of ``x``, as in PyTorch.
    """
    rank = x.ndim - 2
    if mode not in SMOOTH_MODES and align_corners is not None:
        raise ValueError(f"[interpolate] mode={mode!r} takes no 'align_corners'.")
    if (size is None) == (scale_factor is None):  # both or neither
        raise ValueError(
            f"[interpolate] one of 'size' and 'scale_factor' is needed but got size={size}, "
            f"scale_factor={scale_factor}."
        )
    if size is not None and recompute_scale_factor:
        raise ValueError("[interpolate] 'recompute_scale_factor' makes no sense with 'size'.")
    if size is not None:
        sizes, scales = ints_per_axis(size, rank, "size", "interpolate", broadcast=False), None
    else:
        scales = _factors(scale_factor, rank)
        sizes = tuple(int(n * s) for n, s in zip(x.shape[1:-1], scales, strict=True))
    used = None if recompute_scale_factor else scales
    return resample(x, sizes, mode, used, bool(align_corners), antialias)


def resample(
    x: mx.array,
    size: Sequence[int],
    mode: str,
    scales: Sequence[float | None] | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> mx.array:
    """Resize to ``size``; matches all overloads of ``aten::upsample_nearest1d`` to ``trilinear3d``.

    Args:
        x: ``(N, *S, C)`` with one to three spatial axes.
        size: of the output, one number per spatial axis.
        mode: as for :func:`interpolate`.
        scales: the scale factors ``size`` was computed from; None, or None for an axis, stands for
            ``size`` over the input's size.
        align_corners: as for :func:`interpolate`.
        antialias: as for :func:`interpolate`.

    Returns:
        ``(N, *size, C)`` in the dtype of ``x``.

    Raises:
        ValueError: ``size``, ``scales`` or ``mode`` do not fit ``x``, or the mode is smooth and
            ``x`` is not floating.
    """
    rank = x.ndim - 2
    factors = (None,) * rank if scales is None else tuple(scales)
    _check(x, size, mode, factors, antialias)
    if mode == "area":
        return adaptive_avg_pool(x, tuple(size))
    if mode in NEAREST_MODES:
        return _nearest(x, size, factors, mode == "nearest-exact")
    y = upcast(x)
    for axis, (count, scale) in enumerate(zip(size, factors, strict=True), start=1):
        y = _smooth_axis(y, axis, count, scale, mode == "bicubic", align_corners, antialias)
    return y.astype(x.dtype)


def _check(
    x: mx.array,
    size: Sequence[int],
    mode: str,
    scales: tuple[float | None, ...],
    antialias: bool,
) -> None:
    rank = x.ndim - 2
    faults = []
    if rank not in (1, 2, 3):
        faults.append(f"input must have 3 to 5 dimensions (N, *spatial, channels), not {x.shape}")
    if mode not in INTERPOLATION_MODES:
        faults.append(f"mode must be one of {', '.join(INTERPOLATION_MODES)}, not {mode!r}")
    if mode in SMOOTH_MODES and SMOOTH_MODES[mode] != rank:
        faults.append(f"mode={mode!r} is for {SMOOTH_MODES[mode]} spatial axes, not {rank}")
    if antialias and mode not in ("bilinear", "bicubic"):
        faults.append(f"antialias is for the modes bilinear and bicubic, not {mode!r}")
    if len(size) != rank or len(scales) != rank:
        faults.append(f"{rank} spatial axes are given size={tuple(size)} and scales={scales}")
    if mode != "area" and (min(size, default=1) < 1 or 0 in x.shape[1:]):
        faults.append(f"sizes must be positive, but input {x.shape} goes to {tuple(size)}")
    if mode not in NEAREST_MODES and not mx.issubdtype(x.dtype, mx.floating):
        faults.append(f"mode={mode!r} needs a floating dtype, not {x.dtype}")
    if faults:
        raise ValueError(f"[interpolate] {'; '.join(faults)}.")


def _factors(scale_factor: float | Sequence[float] | None, rank: int) -> tuple[float, ...]:
    if isinstance(scale_factor, int | float):
        return (scale_factor,) * rank
    factors = tuple(scale_factor or ())
    if len(factors) != rank:
        raise ValueError(
            f"[interpolate] 'scale_factor' must be one number or {rank} for {rank} spatial axes "
            f"but got {scale_factor}."
        )
    return factors


def _nearest(
    x: mx.array, size: Sequence[int], scales: Sequence[float | None], exact: bool
) -> mx.array:
    repeats = [1] * x.ndim
    small_image = len(size) == 2 and sum(size) <= 128
    for axis, (count, scale) in enumerate(zip(size, scales, strict=True), start=1):
        indices = nearest_indices(x.shape[axis], count, scale, exact, small_image)
        times = count // x.shape[axis]
        if indices == tuple(i // times for i in range(count) if times):
            repeats[axis] = times
        else:
            x = take_on_axis(x, axis, mx.array(indices))
    return _repeated(x, repeats)


def _repeated(x: mx.array, repeats: Sequence[int]) -> mx.array:
    """Repeat every element ``repeats[axis]`` times along each axis."""
    if set(repeats) == {1}:
        return x
    apart = [length for n in x.shape for length in (n, 1)]
    spread = [length for pair in zip(x.shape, repeats, strict=True) for length in pair]
    joined = [n * times for n, times in zip(x.shape, repeats, strict=True)]
    return mx.broadcast_to(x.reshape(apart), spread).reshape(joined)


def _smooth_axis(
    x: mx.array,
    axis: int,
    count: int,
    scale: float | None,
    cubic: bool,
    align_corners: bool,
    antialias: bool,
) -> mx.array:
    size = x.shape[axis]
    plain = scale is None or size * scale == count
    if count == size and (plain or align_corners or antialias or not cubic):
        return x
    if antialias:
        taps = antialiased_taps(size, count, scale, align_corners, cubic)
    elif cubic:
        taps = cubic_taps(size, count, scale, align_corners)
    elif count % size == 0 and plain and not align_corners:
        return _linear_by_whole_factor(x, axis, count // size)
    else:
        taps = linear_taps(size, count, scale, align_corners)
    return _weighted_sum(x, axis, taps)


def _weighted_sum(x: mx.array, axis: int, taps: Sequence[Tap]) -> mx.array:
    shape = (-1, *[1] * (x.ndim - 1 - axis))
    terms = (
        take_on_axis(x, axis, mx.array(tap.indices))
        * mx.array(tap.weights, dtype=x.dtype).reshape(shape)
        for tap in taps
    )
    first = next(terms)
    return sum(terms, first)


def _linear_by_whole_factor(x: mx.array, axis: int, factor: int) -> mx.array:
    """Interpolate linearly by an integer factor, without a gather, whose gradient is slow.

    The first half of an element's outputs is interpolated with the element before it, the rest with
    the element after it. At both ends the element itself takes the place of the missing one.
    """
    size = x.shape[axis]
    first, last = slice_axis(x, axis, 0, 1), slice_axis(x, axis, size - 1, size)
    before = mx.concatenate([first, slice_axis(x, axis, 0, size - 1)], axis=axis)
    after = mx.concatenate([slice_axis(x, axis, 1, size), last], axis=axis)
    here, before, after = (mx.expand_dims(y, axis + 1) for y in (x, before, after))
    distances = mx.array([abs((i + 0.5) / factor - 0.5) for i in range(factor)], dtype=x.dtype)
    distances = distances.reshape(-1, *[1] * (x.ndim - 1 - axis))
    back, forth = distances[: factor // 2], distances[factor // 2 :]
    halves = [here * (1 - back) + before * back, here * (1 - forth) + after * forth]
    return mx.flatten(mx.concatenate(halves, axis=axis + 1), axis, axis + 1)


class Upsample(nn.Module):
    """:func:`interpolate` with fixed arguments; matches ``torch.nn.Upsample``.

    Args:
        size: of the output.
        scale_factor: in place of ``size``.
        mode: as for :func:`interpolate`.
        align_corners: as for :func:`interpolate`.
        recompute_scale_factor: as for :func:`interpolate`.

    Shape:
        ``(N, *S, C)`` to ``(N, *size, C)``.
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = tuple(size) if isinstance(size, Sequence) else size
        self.scale_factor = (
            tuple(scale_factor) if isinstance(scale_factor, Sequence) else scale_factor
        )
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def _extra_repr(self) -> str:
        target = f"scale_factor={self.scale_factor}" if self.size is None else f"size={self.size}"
        return f"{target}, mode={self.mode!r}"

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x`` resized."""
        scale = self.scale_factor
        return interpolate(
            x, self.size, scale, self.mode, self.align_corners, self.recompute_scale_factor
        )
