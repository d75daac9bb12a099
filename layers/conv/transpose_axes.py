"""The axes of a transposed convolution: phases, shifts, overlapping blocks, and their layout."""

from collections.abc import Sequence
from itertools import product

import mlx.core as mx

from mlxport.layers.windows.geometry import TransposedAxis

Numbers = tuple[int, ...]
Meetings = list[list[tuple[int, int]]]


def taps_stay_apart(axis: TransposedAxis) -> bool:
    """Whether one tap at most reaches each output position, and all in the order of the output."""
    return axis.kernel == 1 or (axis.dilation == 1 and axis.kernel <= axis.stride)


def phases_of(axis: TransposedAxis) -> tuple[int, Meetings]:
    """The rows of each phase, and what meets in it: ``(tap, shift)``.

    Phase ``r`` holds the outputs ``r``, ``r + stride``, ...; its row ``j`` is the sum of the rows
    ``j + shift`` of its taps, where there is such a row.
    """
    count = min(axis.stride, axis.output)
    length = -(-axis.output // count)
    meetings = []
    for phase in range(count):
        landings = [
            (tap, *divmod(phase + axis.offset - tap * axis.dilation, axis.stride))
            for tap in range(axis.kernel)
        ]
        meetings.append(
            [
                (tap, shift)
                for tap, shift, remainder in landings
                if remainder == 0 and -length < shift < axis.size
            ]
        )
    return length, meetings


def pairs(meetings: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[Numbers, Numbers]]:
    """Every combination of taps, one on each axis, with their shifts."""
    return [
        (tuple(tap for tap, _ in combination), tuple(shift for _, shift in combination))
        for combination in product(*meetings)
    ]


class Shifts:
    """An input under whole-row shifts, zero where there is no row; each is cut out once.

    Args:
        x: The input.
        first: Its first axis to be shifted; the others follow it.
        plans: The phases of each of these axes.
    """

    def __init__(self, x: mx.array, first: int, plans: Sequence[tuple[int, Meetings]]):
        widths = [(0, 0)] * x.ndim
        for index, (length, meetings) in enumerate(plans, first):
            shifts = [shift for meeting in meetings for _, shift in meeting] or [0]
            widths[index] = (
                max(-min(shifts), 0),
                max(max(shifts) + length - x.shape[index], 0),
            )
        self._x = mx.pad(x, widths) if any(map(any, widths)) else x
        self._before = (slice(None),) * first
        self._starts = [before for before, _ in widths[first : first + len(plans)]]
        self._lengths = [length for length, _ in plans]
        self._cut: dict[Numbers, mx.array] = {}

    def __getitem__(self, shift: Numbers) -> mx.array:
        if shift not in self._cut:
            ends = zip(shift, self._starts, self._lengths, strict=True)
            rows = [slice(start + by, start + by + length) for by, start, length in ends]
            self._cut[shift] = self._x[self._before + tuple(rows)]
        return self._cut[shift]


def overlap(y: mx.array, axis: TransposedAxis) -> mx.array:
    """Add up the taps of the last axis: ``(..., size, kernel * C)`` to ``(..., output, C)``.

    The first ``stride`` taps of a row lie in the order of the outputs they reach, and so does each
    further block of as many, one row later: blocks are added whole. Where the last block is short,
    the phases it reaches are added apart from the rest.
    """
    channels = y.shape[-1] // axis.kernel
    blocks = -(-axis.kernel // axis.stride)
    reached = axis.kernel - (blocks - 1) * axis.stride
    ends = {block * axis.stride + end for block in range(blocks) for end in (reached, axis.stride)}
    # Splitting once, not slicing per block, makes the gradient one concatenation.
    parts = [*mx.split(y, [end * channels for end in sorted(ends) if end < axis.kernel], -1)]
    rows = axis.size + blocks - 1
    if reached == axis.stride:
        y = _staggered(parts, rows)
    elif blocks == 1:
        y = mx.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, (axis.stride - reached) * channels)])
    else:
        y = mx.concatenate([_staggered(parts[::2], rows), _staggered(parts[1::2], rows)], -1)
    y = mx.unflatten(y, -1, (axis.stride, channels)).flatten(-3, -2)
    return window(y, y.ndim - 2, axis.offset, axis.output)


def _staggered(parts: Sequence[mx.array], rows: int) -> mx.array:
    """The sum of ``(..., size, columns)``, each one row later than the one before."""
    index = parts[0].ndim - 2
    terms = [window(part, index, -late, rows) for late, part in enumerate(parts)]
    return sum(terms[1:], start=terms[0])


def merge_phases(y: mx.array, order: Sequence[int], merged: int, bias: mx.array | None) -> mx.array:
    """Bring the axes of a result in order, add the bias, and merge what belongs together.

    Args:
        y: Its axes in ``order`` are ``(N, L, s, ..., L, s, ..., G, C)``: ``merged`` pairs of rows
            and phases, then what spatial axes are whole already.
        order: As ``mx.transpose`` takes it.
        merged: The number of pairs.
        bias: ``(G * C,)`` or ``None``.

    Returns:
        ``(N, L * s, ..., G * C)``.
    """
    y = y.transpose(order)
    if bias is not None:
        # Before the axes are merged, so that the sum is what copies them into their order.
        y = y + mx.unflatten(bias, 0, y.shape[-2:])
    for index in range(1, 1 + merged):
        y = y.flatten(index, index + 1)
    return y.flatten(-2)


def window(y: mx.array, index: int, start: int, length: int) -> mx.array:
    """Positions ``start`` to ``start + length`` of an axis, zero outside it."""
    size = y.shape[index]
    first = min(max(start, 0), size)
    last = max(min(start + length, size), first)
    if (first, last) != (0, size):
        y = y[(slice(None),) * index + (slice(first, last),)]
    before = min(max(-start, 0), length)
    after = length - before - (last - first)
    if before or after:
        widths = [(0, 0)] * y.ndim
        widths[index] = (before, after)
        y = mx.pad(y, widths)
    return y
