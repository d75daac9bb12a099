"""Slices of a model's outputs and histograms of their errors, for people to look at.

Small enough to be part of ``parity.json``, whatever the size of the outputs. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from mlxport.converter.parity.verdict.precision import PRECISIONS
from mlxport.converter.parity.verdict.reference_data import (
    NumpyArray,
    ReferenceValue,
    sample_indices,
)
from mlxport.converter.plan.json_data import Compressed, Count

UNDEFINED = 255  # the level of a pixel that is NaN or infinite
LEVELS = 254  # the highest level of all others
STEP = 0.5  # decades a bin of a histogram is wide

_SHOWN = 3  # outputs of a model
_LEAST = 4  # elements on a side of what is worth a picture
_SIDES = {2: 192, 3: 96}  # axes of the image or volume -> pixels on a side at most
_SAMPLE = 65536
_STACK = 11  # slices through a volume


@dataclass(frozen=True)
class Plane:
    """One slice in 8 bits, row after row.

    Attributes:
        at: which slice of the volume, as an index (``"[:, 12, :]"``).
        shape: rows and columns.
        reference: PyTorch's value in float64, from the lowest level (0) to the highest.
        mlx: MLX's, on the same scale.
        difference: MLX's less PyTorch's; the level in the middle is none.
    """

    at: str
    shape: tuple[Count, Count]
    reference: Compressed
    mlx: Compressed
    difference: Compressed

    def __post_init__(self) -> None:
        size = self.shape[0] * self.shape[1]
        for name in ("reference", "mlx", "difference"):
            if (given := len(getattr(self, name))) != size:
                raise ValueError(f"{name} has {given} pixels, its shape {size}")


@dataclass(frozen=True)
class Picture:
    """Slices of one output: of an image the whole, of a volume the central three, and a stack.

    Attributes:
        name: of the output.
        leading: index of the batch item and channel shown, the one with the largest error.
        limits: values of the lowest and the highest level.
        largest: difference of the highest level; of the lowest, its negative.
        planes: the central slices.
        stack: of a volume, slices across its first axis at even steps, on the same scales.
    """

    name: str
    leading: tuple[Count, ...]
    limits: tuple[float, float]
    largest: Annotated[float, msgspec.Meta(ge=0)]
    planes: tuple[Plane, ...]
    stack: tuple[Plane, ...] = ()


@dataclass(frozen=True)
class Histogram:
    """How large the errors at the single positions of one output are.

    In units of the reference's root mean square, counted by powers of ten: bin ``k`` holds the
    errors from ``10 ** (start + k / 2)`` to before ``10 ** (start + (k + 1) / 2)``.

    Attributes:
        name: of the output.
        start: exponent of ten at which the first bin begins.
        step: width of a bin in decades.
        mlx: how many positions have such an error in MLX.
        torch: how many in PyTorch's own dtype.
        exact: how many have none, in MLX and in PyTorch.
    """

    name: str
    start: float
    step: float
    mlx: tuple[Count, ...]
    torch: tuple[Count, ...]
    exact: tuple[Count, Count]


def pictured(
    names: Sequence[str], arrays: Sequence[NumpyArray], values: Sequence[ReferenceValue]
) -> tuple[tuple[Picture, ...], tuple[Histogram, ...]]:
    """Return slices and histograms of a model's floating outputs, of the first few.

    Outputs of more than two axes have a picture, the last two or three axes being the image or
    volume. Outputs of another shape than PyTorch's, and those sampled in part, have none.

    Args:
        names: of the outputs.
        arrays: MLX's values in PyTorch's axis order.
        values: PyTorch's.
    """
    pictures, histograms = [], []
    for name, array, value in zip(names, arrays, values, strict=False):
        real = value.dtype in PRECISIONS and not value.dtype.startswith("complex")
        shown = (
            array.shape == value.shape and array.ndim and array.size
        )  # one number has no picture
        if not real or value.indices is not None or not shown:
            continue
        reference, native = value.reference.reshape(value.shape), value.native.reshape(value.shape)
        sample = sample_indices(array.size, _SAMPLE, 0)
        chosen = slice(None) if sample is None else sample
        places = np.unravel_index(np.arange(array.size)[chosen], array.shape)
        expected = reference[places]
        with np.errstate(all="ignore"):
            off = np.abs(array[places].astype(np.float64) - expected)
            torch_off = np.abs(native[places] - expected)
        worst = int(np.argmax(np.where(np.isfinite(off), off, np.inf)))
        before = len(value.shape) - _axes(value.shape)
        leading = tuple(int(axis[worst]) for axis in places[:before])
        histograms.append(_histogram(name, off, torch_off, expected))
        if picture := _picture(name, leading, array[leading], reference[leading]):
            pictures.append(picture)
        if len(histograms) == _SHOWN:
            break
    return tuple(pictures), tuple(histograms)


def _axes(shape: Sequence[int]) -> int:
    """Return how many of the last axes are an image or a volume; 0 where there is none."""
    axes = 0 if len(shape) < 3 else 2 if len(shape) < 5 else 3
    return axes if axes and min(shape[-axes:]) >= _LEAST else 0


def _picture(
    name: str, leading: tuple[int, ...], array: NumpyArray, reference: NumpyArray
) -> Picture | None:
    if reference.ndim not in _SIDES or min(reference.shape) < _LEAST:
        return None
    centres, steps = _centres(reference.shape), _steps(reference.shape)
    cut = [(at, _cut(array, a), _cut(reference, a)) for at, a in [*centres, *steps]]
    with np.errstate(all="ignore"):
        differences = [mine.astype(np.float64) - theirs for _, mine, theirs in cut]
    low, high = _limits([theirs for *_, theirs in cut])
    _, largest = _limits([np.abs(difference) for difference in differences])
    planes = tuple(
        Plane(
            at,
            (theirs.shape[0], theirs.shape[1]),
            _levels(theirs, low, high),
            _levels(mine, low, high),
            _levels(difference, -largest, largest),
        )
        for (at, mine, theirs), difference in zip(cut, differences, strict=True)
    )
    first = len(centres)
    return Picture(name, leading, (low, high), largest, planes[:first], planes[first:])


def _steps(shape: Sequence[int]) -> list[tuple[str, tuple[Any, ...]]]:
    """Return even steps through the first axis of a volume, as text and as indices."""
    if len(shape) == 2:
        return []
    places = np.unique(np.linspace(0, shape[0] - 1, min(_STACK, shape[0])).round().astype(int))
    return [(f"[{k}, :, :]", (int(k), slice(None), slice(None))) for k in places]


def _centres(shape: Sequence[int]) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the central slices, as text and as indices; of an image the whole."""
    cuts = [None] if len(shape) == 2 else range(len(shape))
    found = []
    for cut in cuts:
        index = tuple(n // 2 if axis == cut else slice(None) for axis, n in enumerate(shape))
        text = ", ".join(":" if isinstance(one, slice) else str(one) for one in index)
        found.append((f"[{text}]", index))
    return found


def _cut(values: NumpyArray, index: tuple[Any, ...]) -> NumpyArray:
    most = _SIDES[values.ndim]
    plane = values[index]
    rows, columns = (-(-side // most) for side in plane.shape)
    return np.asarray(plane[::rows, ::columns])


def _limits(planes: Sequence[NumpyArray]) -> tuple[float, float]:
    flat = np.concatenate([plane.reshape(-1) for plane in planes]).astype(np.float64)
    finite = flat[np.isfinite(flat)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _levels(values: NumpyArray, low: float, high: float) -> bytes:
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    half = np.where(finite, values, 0.0) / 2  # the range itself may overflow
    span = high / 2 - low / 2
    share = (half - low / 2) / span if span else np.full(values.shape, 0.5)
    levels = np.rint(np.clip(share, 0.0, 1.0) * LEVELS)
    return np.where(finite, levels, UNDEFINED).astype(np.uint8).tobytes()


def _histogram(name: str, mlx: NumpyArray, torch: NumpyArray, reference: NumpyArray) -> Histogram:
    finite = reference[np.isfinite(reference)]
    with np.errstate(all="ignore"):
        unit = float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0
    unit = unit if np.isfinite(unit) and unit > 0 else 1.0
    exponents, exact = [], []
    for off in (mlx, torch):
        kept = off[np.isfinite(off)]
        exact.append(int(np.count_nonzero(kept == 0)))
        exponents.append(np.log10(kept[kept > 0] / unit))
    known = np.concatenate(exponents)
    known = known[np.isfinite(known)]
    start = float(np.floor(known.min())) if known.size else 0.0
    bins = int(np.floor((known.max() - start) / STEP)) + 1 if known.size else 0
    edges = start + STEP * np.arange(bins + 1)
    counts = [tuple(map(int, np.histogram(e, edges)[0])) if bins else () for e in exponents]
    return Histogram(name, start, STEP, counts[0], counts[1], (exact[0], exact[1]))
