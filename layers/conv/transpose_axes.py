"""Building blocks of transposed convolutions: output phases, shifted rows and their assembly.

The outputs of an axis fall into phases, their residues modulo the stride. In each phase, every tap
of the kernel that contributes reads the input shifted by whole rows.
"""

from collections.abc import Sequence
from itertools import product

import mlx.core as mx

from mlxport.layers.windows.geometry import TransposedAxis

Ints = tuple[int, ...]
# For every phase of an axis, the taps that contribute to it, each with its shift in rows.
PhaseTaps = list[list[tuple[int, int]]]


def taps_do_not_overlap(axis: TransposedAxis) -> bool:
    """Whether at most one tap contributes to each output, with taps in the order of outputs."""
    return axis.kernel == 1 or (axis.dilation == 1 and axis.kernel <= axis.stride)


def output_phases(axis: TransposedAxis) -> tuple[int, PhaseTaps]:
    """Return the number of rows of a phase, and the taps of each phase as ``(tap, shift)``.

    Phase ``r`` has the outputs ``r``, ``r + stride``, ...; its row ``j`` is the sum over its taps
    of input row ``j + shift``, where there is such a row.
    """
    count = min(axis.stride, axis.output)
    length = -(-axis.output // count)
    phases = []
    for phase in range(count):
        candidates = [
            (tap, *divmod(phase + axis.offset - tap * axis.dilation, axis.stride))
            for tap in range(axis.kernel)
        ]
        phases.append(
            [
                (tap, shift)
                for tap, shift, remainder in candidates
                if remainder == 0 and -length < shift < axis.size
            ]
        )
    return length, phases


def tap_combinations(phases: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[Ints, Ints]]:
    """Return all combinations of one tap per axis, as the taps and their shifts.

    Args:
        phases: One phase of each axis: its taps and their shifts.
    """
    return [
        (tuple(tap for tap, _ in combination), tuple(shift for _, shift in combination))
        for combination in product(*phases)
    ]


class ShiftedRows:
    """An array shifted by whole rows, zero where there is no row; every shift is sliced once.

    Args:
        x: The input.
        first: The first axis to be shifted; the others follow it.
        plans: The phases of each of these axes, as :func:`output_phases` returns them.
    """

    def __init__(self, x: mx.array, first: int, plans: Sequence[tuple[int, PhaseTaps]]):
        widths = [(0, 0)] * x.ndim
        for index, (length, phases) in enumerate(plans, first):
            shifts = [shift for phase in phases for _, shift in phase] or [0]
            widths[index] = (
                max(-min(shifts), 0),
                max(max(shifts) + length - x.shape[index], 0),
            )
        self._x = mx.pad(x, widths) if any(map(any, widths)) else x
        self._before = (slice(None),) * first
        self._starts = [before for before, _ in widths[first : first + len(plans)]]
        self._lengths = [length for length, _ in plans]
        self._slices: dict[Ints, mx.array] = {}

    def __getitem__(self, shift: Ints) -> mx.array:
        if shift not in self._slices:
            ends = zip(shift, self._starts, self._lengths, strict=True)
            rows = [slice(start + by, start + by + length) for by, start, length in ends]
            self._slices[shift] = self._x[self._before + tuple(rows)]
        return self._slices[shift]


def add_overlapping_taps(y: mx.array, axis: TransposedAxis) -> mx.array:
    """Sum the taps of the last spatial axis: ``(..., size, kernel * C)`` to ``(..., output, C)``.

    The first ``stride`` taps of a row are in the order of their outputs. So is each further block
    of ``stride`` taps, one row later: whole blocks are added. If the last block is shorter, the
    phases it contributes to are added separately.
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
    return crop_or_pad(y, y.ndim - 2, axis.offset, axis.output)


def _staggered(parts: Sequence[mx.array], rows: int) -> mx.array:
    """Sum arrays ``(..., size, columns)``, each one row later than the previous one."""
    index = parts[0].ndim - 2
    terms = [crop_or_pad(part, index, -delay, rows) for delay, part in enumerate(parts)]
    return sum(terms[1:], start=terms[0])


def merge_phases(y: mx.array, order: Sequence[int], merged: int, bias: mx.array | None) -> mx.array:
    """Transpose a result, add the bias, and merge the rows and phases of every spatial axis.

    Args:
        y: Transposed by ``order``: ``(N, L, s, ..., L, s, ..., G, C)``, with ``merged`` pairs of
            rows and phases, then the spatial axes that have no phases.
        order: As ``mx.transpose`` takes it.
        merged: The number of pairs.
        bias: ``(G * C,)`` or ``None``.

    Returns:
        ``(N, L * s, ..., G * C)``.
    """
    y = y.transpose(order)
    if bias is not None:
        # Before the merge, so that the sum writes the array in its final order: no further copy.
        y = y + mx.unflatten(bias, 0, y.shape[-2:])
    for index in range(1, 1 + merged):
        y = y.flatten(index, index + 1)
    return y.flatten(-2)


def crop_or_pad(y: mx.array, index: int, start: int, length: int) -> mx.array:
    """Return positions ``start`` to ``start + length`` of an axis, zero outside of it."""
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
