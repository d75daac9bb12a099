"""One axis of a transposed convolution: its phases, their interleaving, and windows of rows."""

import mlx.core as mx

from mlxport.layers.conv_geometry import Axis


def phases_of(axis: Axis) -> tuple[int, list[list[tuple[int, int]]]]:
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


def interleave(parts: list[mx.array], index: int, output: int) -> mx.array:
    """One array of ``output`` rows from those of each phase in turn."""
    if len(parts) == 1:
        return parts[0]
    y = mx.stack(parts, index + 1).flatten(index, index + 1)
    return window(y, index, 0, output)


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
