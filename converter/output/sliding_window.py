"""Run a model over a volume of any size, patch by patch, and blend its scores. Needs no torch."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np

from mlxport.converter.arguments import argument
from mlxport.converter.errors import OptionsError
from mlxport.converter.expected import described
from mlxport.converter.plan.record import BEGINNING

_Place: TypeAlias = tuple[slice, ...]

# Of the Gaussian: a side holds eight standard deviations, as nnU-Net and MONAI have it.
_SIDE_IN_SIGMAS = 8
# Bytes are counted in 64 bits.
_PLACES = sys.maxsize // 2**10
_LINES = 10  # of progress, where stderr is no terminal


def blended_scores(
    model: Callable[[mx.array], Any],
    volume: Any,
    patch: Sequence[int],
    *,
    overlap: float,
    mirror: Sequence[int],
    channels_last: bool,
    progress: bool,
    group: Any,
) -> np.ndarray:
    """Return a model's scores over a volume; see ``mlxport.sliding_window``."""
    _check_kinds(model, volume, group)
    _check(volume, patch, overlap, mirror)
    volume, dtype = _readable(volume)
    volume = volume if channels_last else np.moveaxis(volume, 0, -1)
    sizes = volume.shape[:-1]
    padding = [max(side - size, 0) for side, size in zip(patch, sizes, strict=True)]
    if math.prod(map(max, patch, sizes)) > _PLACES:
        raise OptionsError(f"{argument('patch', tuple(patch))}: no array has so many places")
    if any(padding):
        # as much before as behind, as nnU-Net and MONAI pad
        volume = np.pad(volume, [*((n // 2, n - n // 2) for n in padding), (0, 0)])
    weights = gaussian(patch)
    places = list(places_of(volume.shape[:-1], patch, overlap))
    total = np.zeros(0, np.float32)
    weight = np.zeros((*volume.shape[:-1], 1), np.float32)
    group = mx.distributed.init() if group is None else group

    def scores_of(place: _Place) -> mx.array:
        # in the order of bytes of this machine: files have both
        given = volume[place].astype(volume.dtype.newbyteorder("="), "C", copy=False)
        return _mirrored(model, mx.array(given).astype(dtype), mirror, channels_last)

    found = _gathered(places, scores_of, group)
    for place, scores in _counted(found, len(places), progress and group.rank() == 0):
        if total.size == 0:
            total = np.zeros((*volume.shape[:-1], scores.shape[-1]), np.float32)
        elif scores.shape[-1] != total.shape[-1]:
            raise OptionsError(
                f"the model gives {scores.shape[-1]} scores for each place of one patch, "
                f"{total.shape[-1]} of others"
            )
        total[place] += weights * scores
        weight[place] += weights
    total /= weight
    inner = tuple(slice(n // 2, n // 2 + size) for n, size in zip(padding, sizes, strict=True))
    blended = total[inner]
    return blended if channels_last else np.moveaxis(blended, -1, 0)


def _readable(volume: np.ndarray | mx.array) -> tuple[np.ndarray, mx.Dtype]:
    """Return a volume as NumPy has it, mapped where it is, and the dtype that a model is given."""
    if isinstance(volume, mx.array):
        # NumPy has no bfloat16, and float32 holds it
        held = volume.astype(mx.float32) if volume.dtype == mx.bfloat16 else volume
        return np.asarray(held), volume.dtype
    none = np.zeros(0, volume.dtype.newbyteorder("="))
    return np.asarray(volume), mx.array(none).dtype


def starts(size: int, patch: int, overlap: float) -> list[int]:
    """Return where the patches of one axis begin: evenly, the last at the end of the axis."""
    # a step of less than one place would only repeat patches
    count = math.ceil(max(size - patch, 0) / max(patch * (1 - overlap), 1)) + 1
    return [round(i * (size - patch) / max(count - 1, 1)) for i in range(count)]


def places_of(sizes: Sequence[int], patch: Sequence[int], overlap: float) -> Iterator[_Place]:
    """Yield where the patches of a volume are."""
    each = (starts(size, side, overlap) for size, side in zip(sizes, patch, strict=True))
    for corner in itertools.product(*each):
        yield tuple(slice(at, at + side) for at, side in zip(corner, patch, strict=True))


def gaussian(patch: Sequence[int]) -> np.ndarray:
    """Return ``(*patch, 1)`` weights in float32, highest in the middle, nowhere zero."""
    weights = np.ones((), np.float64)
    for side in patch:
        away = (np.arange(side) - (side - 1) / 2) * _SIDE_IN_SIGMAS / side
        weights = np.multiply.outer(weights, np.exp(-0.5 * away**2))
    return weights[..., None].astype(np.float32)


def _mirrored(
    model: Callable[[mx.array], Any], x: mx.array, mirror: Sequence[int], channels_last: bool
) -> mx.array:
    """Return the mean of the scores of ``(*patch, C)`` and all its mirror images, mirrored back.

    Each is evaluated before the next begins, so memory holds the activations of one.
    """
    chosen = [c for n in range(len(mirror) + 1) for c in itertools.combinations(mirror, n)]
    total = mx.array(0.0)
    for axes in chosen:
        scores = _flipped(_called(model, _flipped(x, axes), channels_last), axes)
        total = total + scores.astype(mx.float32)
        _evaluate(total)
    return total / len(chosen)


def _evaluate(scores: mx.array) -> None:
    try:
        mx.eval(scores)
    except (RuntimeError, ValueError) as error:
        # what the model computes is evaluated here, out of sight of its code
        raise OptionsError(
            f"MLX cannot evaluate what the model gives of a patch: {error}"
        ) from error


def _flipped(x: mx.array, axes: Sequence[int]) -> mx.array:
    return x[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim))]


def _called(model: Callable[[mx.array], Any], x: mx.array, channels_last: bool) -> mx.array:
    """Return ``(*patch, classes)`` of ``(*patch, C)``.

    Raises:
        OptionsError: the model gives something else.
    """
    scores = model(x[None] if channels_last else mx.moveaxis(x, -1, 0)[None])
    if isinstance(scores, (list, tuple)) and scores:  # deep supervision: the finest first
        scores = scores[0]
    if not isinstance(scores, mx.array) or scores.ndim != x.ndim + 1:
        shape = getattr(scores, "shape", type(scores).__name__)
        raise OptionsError(f"the model gives {shape} of a patch, not scores for each place in it")
    if len(scores) != 1 or mx.issubdtype(scores.dtype, mx.complexfloating):
        raise OptionsError(
            f"the model gives {scores.shape} in {scores.dtype} of one patch: a window needs a "
            "batch of one, in real numbers"
        )
    scores = scores[0]
    scores = scores if channels_last else mx.moveaxis(scores, 0, -1)
    if scores.shape[:-1] != x.shape[:-1] or not scores.shape[-1]:
        raise OptionsError(
            f"the model gives {scores.shape[-1]} scores for each of {scores.shape[:-1]} places of "
            f"a patch of {x.shape[:-1]}: a window needs one or more for each place in it"
        )
    return scores


def _gathered(
    places: Sequence[_Place], scores_of: Callable[[_Place], mx.array], group: Any
) -> Iterator[tuple[_Place, np.ndarray]]:
    """Yield each place in order with its scores, on every machine of a group alike.

    The machines take turns, and what they found is added up in one order: the sums are those of
    one machine, bit for bit, where each computes the same of a patch.
    """
    count = group.size()
    for first in range(0, len(places), count):
        turn = places[first : first + count]
        # a machine that is left over computes the last patch again
        found = scores_of(turn[min(group.rank(), len(turn) - 1)])[None]
        found = mx.distributed.all_gather(found, group=group) if count > 1 else found
        yield from zip(turn, np.array(found), strict=False)


def _counted(
    found: Iterable[tuple[_Place, np.ndarray]], total: int, progress: bool
) -> Iterator[tuple[_Place, np.ndarray]]:
    """Show on stderr how far it has come: a bar on a terminal, elsewhere some lines."""
    if not progress:
        yield from found
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(found, "patches", total, console=Console(stderr=True), transient=True)
        return
    begun, step = time.monotonic(), math.ceil(total / _LINES)
    for done, one in enumerate(found, 1):
        yield one
        if done % step == 0 or done == total:
            sys.stderr.write(f"patches: {done} of {total}, {time.monotonic() - begun:.0f} s\n")


def _check_kinds(model: Any, volume: Any, group: Any) -> None:
    """Check that a user gives a model, a volume and a group of machines.

    Raises:
        OptionsError: one is something else.
    """
    if not callable(model) or isinstance(model, type):
        raise OptionsError(f"{argument('model')}: expected a model, got {described(model)}")
    if hasattr(model, BEGINNING):
        raise OptionsError(
            f"{argument('model')} keeps state from call to call, and a patch is not what follows "
            "the one before. Give a function that resets it first: "
            "lambda x: (model.reset(), model(x))[1]"
        )
    if not isinstance(volume, (np.ndarray, mx.array)):
        raise OptionsError(
            f"{argument('volume')}: expected an array of MLX or NumPy, got {described(volume)}"
        )
    if isinstance(volume, np.ndarray) and volume.dtype.kind not in "biufc":
        raise OptionsError(
            f"{argument('volume')}: expected numbers, got an array of dtype {volume.dtype}"
        )
    if group is not None and not isinstance(group, mx.distributed.Group):
        raise OptionsError(
            f"{argument('group')}: expected one of mx.distributed, got {described(group)}"
        )


def _check(volume: Any, patch: Sequence[int], overlap: float, mirror: Sequence[int]) -> None:
    """Check what a user gives.

    Raises:
        OptionsError: something does not fit; all of it is listed.
    """
    problems = []
    if not patch or any(side < 1 for side in patch):
        problems.append(f"{argument('patch', tuple(patch))}: expected a size of one or more each")
    if volume.ndim != len(patch) + 1:
        problems.append(
            f"a volume of {tuple(volume.shape)} and {argument('patch', tuple(patch))}: expected a "
            "side for each axis of the volume but its channels"
        )
    elif 0 in volume.shape:
        problems.append(f"a volume of {tuple(volume.shape)} is empty")
    if not 0 <= overlap < 1:
        problems.append(f"{argument('overlap', overlap)}: expected 0 or more, less than 1")
    if len({*mirror}) < len(mirror) or any(not 0 <= axis < len(patch) for axis in mirror):
        problems.append(
            f"{argument('mirror', tuple(mirror))}: expected axes of the patch, each once, from 0"
        )
    if problems:
        raise OptionsError("\n".join(problems))
