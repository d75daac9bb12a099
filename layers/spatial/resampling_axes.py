"""Compute the source indices and weights of resampling along one axis, in plain Python.

Positions are those of PyTorch's CPU kernels. A nearest neighbour changes where a position crosses
an integer, so there each rounding to float32 is repeated. Weights are smooth: they are computed in
float64.
"""

import math
from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Tap(NamedTuple):
    """One term of a weighted sum: output ``i`` takes ``weights[i] * x[indices[i]]``."""

    indices: tuple[int, ...]
    weights: tuple[float, ...]


def nearest_indices(
    size: int, count: int, scale: float | None, exact: bool, small_image: bool
) -> tuple[int, ...]:
    """Return the index that each of ``count`` outputs copies from an axis of ``size``.

    PyTorch has two kernels. The one for small images (and for tensors stored channels last) rounds
    at other points, and where the size is kept or doubled it ignores a ``scale`` that is not
    exactly 1 or 2.

    Args:
        size: of the input axis.
        count: of the output axis.
        scale: the scale factor where one was given, which need not be ``count / size``.
        exact: PyTorch's ``"nearest-exact"``: from centre to centre.
        small_image: two spatial axes whose output sizes add up to 128 at most.
    """
    if small_image and not exact and count in (size, 2 * size):
        return tuple(i * size // count for i in range(count))
    (step,) = _float32([1 / scale if scale else size / count])
    if not exact:
        positions = _float32([i * step for i in range(count)])
    elif small_image:
        positions = _float32([(i + 0.5) * step for i in range(count)])
    else:  # the compiler fuses multiplication and subtraction: one rounding
        centres = _float32([(i + 0.5) * step - 0.5 for i in range(count)])
        positions = _float32([max(centre, 0.0) + 0.5 for centre in centres])
    return tuple(min(math.floor(position), size - 1) for position in positions)


def linear_taps(size: int, count: int, scale: float | None, align_corners: bool) -> list[Tap]:
    """Return the two neighbours of each of ``count`` positions on an axis of ``size``."""
    positions = [max(p, 0.0) for p in _positions(size, count, scale, align_corners)]
    lows = [min(math.floor(p), size - 1) for p in positions]
    shares = [min(p - low, 1.0) for p, low in zip(positions, lows, strict=True)]
    return [
        Tap(tuple(lows), tuple(1 - share for share in shares)),
        Tap(tuple(min(low + 1, size - 1) for low in lows), tuple(shares)),
    ]


def cubic_taps(size: int, count: int, scale: float | None, align_corners: bool) -> list[Tap]:
    """Return the four neighbours of each position, weighted by a cubic kernel with a = -0.75."""
    positions = _positions(size, count, scale, align_corners)
    lows = [math.floor(p) for p in positions]
    return [
        Tap(
            tuple(min(max(low + offset, 0), size - 1) for low in lows),
            tuple(_cubic(p - low - offset, -0.75) for p, low in zip(positions, lows, strict=True)),
        )
        for offset in (-1, 0, 1, 2)
    ]


def antialiased_taps(
    size: int, count: int, scale: float | None, align_corners: bool, cubic: bool
) -> list[Tap]:
    """Return the elements weighted by a triangle or cubic kernel (a = -0.5), scaled by the step.

    The kernel is scaled only if the step is above 1. Windows have different numbers of elements:
    shorter ones are padded with weight zero.
    """
    step = _step(size, count, scale, align_corners)
    width = max(step, 1.0)
    reach = (2.0 if cubic else 1.0) * width
    kernel: Callable[[float], float] = _keys if cubic else _triangle
    windows = []
    for i in range(count):
        centre = step * (i + 0.5)
        start = max(int(centre - reach + 0.5), 0)
        stop = min(int(centre + reach + 0.5), size)
        weights = [kernel((j - centre + 0.5) / width) for j in range(start, stop)]
        total = sum(weights) or 1.0
        windows.append((start, [weight / total for weight in weights]))
    longest = max(len(weights) for _, weights in windows)
    return [
        Tap(
            tuple(start + min(k, len(weights) - 1) for start, weights in windows),
            tuple(weights[k] if k < len(weights) else 0.0 for _, weights in windows),
        )
        for k in range(longest)
    ]


def _step(size: int, count: int, scale: float | None, align_corners: bool) -> float:
    if align_corners:
        return (size - 1) / (count - 1) if count > 1 else 0.0
    return 1 / scale if scale else size / count


def _positions(size: int, count: int, scale: float | None, align_corners: bool) -> list[float]:
    step = _step(size, count, scale, align_corners)
    if align_corners:
        return [step * i for i in range(count)]
    return [step * (i + 0.5) - 0.5 for i in range(count)]


def _cubic(distance: float, a: float) -> float:
    x = abs(distance)
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _keys(distance: float) -> float:
    return _cubic(distance, -0.5)


def _triangle(distance: float) -> float:
    return max(1 - abs(distance), 0.0)


def _float32(values: Sequence[float]) -> list[float]:
    """Round to float32."""
    return array("f", values).tolist()
