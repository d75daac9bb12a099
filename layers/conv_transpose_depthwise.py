"""Transposed convolutions of which every group has one input channel.

A matrix product over one channel is no more than a broadcast product, and slower: here each output
phase (see :mod:`mlxport.layers.conv_transpose_axes`) sums shifted inputs, each multiplied by the
weights of one tap, a weight for each channel.
"""

from itertools import product

import mlx.core as mx

from mlxport.layers.conv_geometry import Axis
from mlxport.layers.conv_transpose_axes import interleave, phases_of

Numbers = tuple[int, ...]


def compute_depthwise(x: mx.array, weight: mx.array, axes: list[Axis]) -> mx.array:
    """The transposed convolution in ``G`` groups, without its bias.

    Args:
        x: ``(N, *S, G)``.
        weight: ``(G * C, *k, 1)``, of the input's dtype.
        axes: One for each spatial axis.

    Returns:
        ``(N, *O, G * C)`` of the input's dtype.
    """
    channels = weight.shape[0] // x.shape[-1]
    x = mx.repeat(x, channels, axis=-1) if channels > 1 else x
    taps = mx.moveaxis(weight.squeeze(-1), 0, -1)
    plans = [phases_of(axis) for axis in axes]
    lengths = [length for length, _ in plans]
    x, starts = _extend(x, plans)
    sums = [
        _sum([(taps[tap], _shifted(x, shift, starts, lengths)) for tap, shift in _pairs(meetings)])
        if all(meetings)
        else mx.zeros((x.shape[0], *lengths, x.shape[-1]), x.dtype)
        for meetings in product(*(meetings for _, meetings in plans))
    ]
    for index, (axis, (_, meetings)) in reversed([*enumerate(zip(axes, plans, strict=True), 1)]):
        count = len(meetings)
        groups = [sums[first : first + count] for first in range(0, len(sums), count)]
        sums = [interleave(parts, index, axis.output) for parts in groups]
    return sums[0]


def _extend(
    x: mx.array, plans: list[tuple[int, list[list[tuple[int, int]]]]]
) -> tuple[mx.array, list[int]]:
    """Put zeros around the input, so that every shift of it can be cut out.

    Returns the input and, for each axis, where its row 0 is now.
    """
    widths = [(0, 0)]
    for size, (length, meetings) in zip(x.shape[1:-1], plans, strict=True):
        shifts = [shift for meeting in meetings for _, shift in meeting] or [0]
        widths.append((max(-min(shifts), 0), max(max(shifts) + length - size, 0)))
    extended = mx.pad(x, [*widths, (0, 0)]) if any(map(any, widths)) else x
    return extended, [before for before, _ in widths[1:]]


def _pairs(meetings: tuple[list[tuple[int, int]], ...]) -> list[tuple[Numbers, Numbers]]:
    """Every combination of taps, one on each axis, with their shifts."""
    return [
        (tuple(tap for tap, _ in combination), tuple(shift for _, shift in combination))
        for combination in product(*meetings)
    ]


def _shifted(x: mx.array, shift: Numbers, starts: list[int], lengths: list[int]) -> mx.array:
    rows = (
        slice(start + by, start + by + length)
        for by, start, length in zip(shift, starts, lengths, strict=True)
    )
    cut: mx.array = x[tuple([slice(None), *rows])]
    return cut


def _sum(terms: list[tuple[mx.array, mx.array]]) -> mx.array:
    total = terms[0][0] * terms[0][1]
    for tap, rows in terms[1:]:
        total = total + tap * rows
    return total
