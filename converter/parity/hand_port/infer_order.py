"""Infer in which axis order an MLX value is stored: from its shape, then from its values.

A model written by hand does not say how it stores its activations. The shapes leave a few orders of
PyTorch's axes; the values, compared with PyTorch's, show which one it is. Numpy only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from mlxport.converter.parity.verdict.judgement import NOISE_MULTIPLE
from mlxport.converter.parity.verdict.precision import PRECISIONS
from mlxport.converter.parity.verdict.reference_data import NumpyArray

AxisOrder = tuple[int, ...]

# Axis of size 1 that MLX's value has and PyTorch's has not.
ADDED = -1

# A value this far off (relative L2) is not recognised as PyTorch's: by far more than any rounding,
# by far less than what another order of the axes gives.
RECOGNISED = 0.1

_SAMPLE = 2048
_MOST_ORDERS = 720


@dataclass(frozen=True)
class OrderMatch:
    """The order found for one tensor.

    Attributes:
        order: ``order[i]`` is the PyTorch axis stored at MLX axis ``i``, or `ADDED`; axes of size
            1 may be absent.
        error: relative L2 error in that order, over a sample of the positions.
        alternatives: other orders in which the values match as well.
        agrees: whether half of the digits or more agree, as they do unless something is wrong.
    """

    order: AxisOrder
    error: float
    alternatives: tuple[AxisOrder, ...] = ()
    agrees: bool = False

    @property
    def recognised(self) -> bool:
        """Whether the values are close enough to PyTorch's to show their order."""
        return self.error <= RECOGNISED


@dataclass
class OrderStatistics:
    """How often a model uses each order elsewhere, by the number of axes in PyTorch."""

    seen: dict[int, Counter[AxisOrder]] = field(default_factory=dict)

    def note(self, match: OrderMatch, rank: int) -> None:
        """Count an order that the values show without ambiguity."""
        if match.recognised and not match.alternatives:
            self.seen.setdefault(rank, Counter())[match.order] += 1

    def sorted(self, orders: Collection[AxisOrder], shape: Sequence[int]) -> list[AxisOrder]:
        """Return orders, the likeliest first: those used elsewhere, then the customary ones."""
        rank = len(shape)
        common = [order for order, _ in self.seen.get(rank, Counter()).most_common()]
        usual = [channels_last_order(rank), torch_order(rank)]
        cores = [_core(order, shape) for order in [*common, *(usual if rank > 3 else usual[::-1])]]

        def place(order: AxisOrder) -> int:
            core = _core(order, shape)
            return cores.index(core) if core in cores else len(cores)

        return sorted(orders, key=lambda order: (place(order), order))


def torch_order(rank: int) -> AxisOrder:
    """Return PyTorch's order of so many axes."""
    return tuple(range(rank))


def channels_last_order(rank: int) -> AxisOrder:
    """Return the order with axis 1 at the end."""
    return (0, *range(2, rank), 1) if rank > 2 else torch_order(rank)


def customary_orders(orders: Collection[AxisOrder], shape: Sequence[int]) -> list[AxisOrder]:
    """Keep the orders in which a model may return its results without the user saying so.

    PyTorch's, channels-last, and for three axes the first two exchanged (sequence or batch first).
    """
    rank = len(shape)
    wanted = {torch_order(rank), channels_last_order(rank)} | ({(1, 0, 2)} if rank == 3 else set())
    cores = {_core(order, shape) for order in wanted}
    return [order for order in orders if _core(order, shape) in cores]


def possible_orders(shape: Sequence[int], stored: Sequence[int]) -> list[AxisOrder]:
    """Return the orders of axes in which a value of one shape is stored in the other.

    Axes of size 1 may be missing or added. Of orders that differ only in the places of axes of size
    1, only the first is returned.

    Args:
        shape: PyTorch's.
        stored: MLX's.
    """
    units = [axis for axis, size in enumerate(shape) if size == 1]
    places = [place for place, size in enumerate(stored) if size == 1]
    # the first units are dropped: a model written for one sample has no batch axis
    kept = units[max(len(units) - len(places), 0) :]
    at = dict(zip(places, [ADDED] * (len(places) - len(kept)) + kept, strict=True))
    rest = [axis for axis, size in enumerate(shape) if size != 1]
    found = _arranged([size for size in stored if size != 1], rest, shape)
    orders = []
    for arranged in islice(found, _MOST_ORDERS):
        axes = iter(arranged)
        orders.append(tuple(at[i] if i in at else next(axes) for i in range(len(stored))))
    return [_by_custom(order, shape, stored) for order in orders]


def infer_order(
    array: NumpyArray,
    expected: NumpyArray,
    shape: tuple[int, ...],
    dtype: str,
    orders: Sequence[AxisOrder],
    *,
    indices: NumpyArray | None = None,
) -> OrderMatch | None:
    """Return which of some orders the values show; of several that match, the first given.

    Args:
        array: MLX's value as stored.
        expected: PyTorch's values, flat.
        shape: PyTorch's shape.
        dtype: name of PyTorch's dtype.
        orders: those that fit the shapes, the likeliest first.
        indices: flat indices of ``expected``; None where it is whole.

    Returns:
        None if there are no orders.
    """
    if not orders:
        return None
    chosen = _spread(expected.size)
    flat = chosen if indices is None else indices[chosen]
    coordinates = np.unravel_index(flat, shape) if shape else ()
    none = np.zeros(flat.size, np.int64)

    def sampled(order: AxisOrder) -> NumpyArray:
        at = tuple(none if axis == ADDED else coordinates[axis] for axis in order)
        return np.atleast_1d(array[at])  # without axes it is one value

    errors = {order: _error(sampled(order), expected[chosen]) for order in orders}
    least = min(errors.values())
    roundoff = PRECISIONS[dtype].roundoff if dtype in PRECISIONS else 0.0
    near = max(2 * least, NOISE_MULTIPLE * roundoff)
    equal = [order for order in orders if errors[order] <= near]
    return OrderMatch(equal[0], errors[equal[0]], tuple(equal[1:]), least <= math.sqrt(roundoff))


def _core(order: AxisOrder, shape: Sequence[int]) -> AxisOrder:
    """Return an order without axes of size 1, which may be anywhere."""
    return tuple(axis for axis in order if axis != ADDED and shape[axis] != 1)


def _by_custom(order: AxisOrder, shape: Sequence[int], stored: Sequence[int]) -> AxisOrder:
    """Return the customary order that differs only in axes of size 1, if there is one."""
    rank = len(shape)
    for usual in (channels_last_order(rank), torch_order(rank)):
        there = tuple(shape[axis] for axis in usual) == tuple(stored)
        if there and _core(usual, shape) == _core(order, shape):
            return usual
    return order


def _arranged(sizes: Sequence[int], axes: list[int], shape: Sequence[int]) -> Iterator[AxisOrder]:
    """Yield the arrangements of axes that have these sizes."""
    if not sizes:
        if not axes:
            yield ()
        return
    for axis in axes:
        if shape[axis] == sizes[0]:
            left = [other for other in axes if other != axis]
            for rest in _arranged(sizes[1:], left, shape):
                yield (axis, *rest)


def _spread(size: int) -> npt.NDArray[np.int64]:
    """Choose positions at random: evenly spaced ones may all be in one plane of a tensor."""
    if size <= _SAMPLE:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, _SAMPLE, replace=False))


def _error(actual: NumpyArray, expected: NumpyArray) -> float:
    """Return the relative L2 error; of integers and flags the share that differs."""
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind in "biu" or actual.dtype.kind in "biu":
        return float(np.mean(actual != expected))
    finite = np.isfinite(actual) & np.isfinite(expected)
    misplaced = float(np.mean(np.isfinite(actual) != np.isfinite(expected)))
    wide = np.complex128 if np.iscomplexobj(expected) else np.float64
    truth = expected[finite].astype(wide)
    with np.errstate(over="ignore", invalid="ignore"):
        lost = float(np.linalg.norm(actual[finite].astype(wide) - truth))
        size = float(np.linalg.norm(truth))
    return misplaced + (lost / size if size else lost)
