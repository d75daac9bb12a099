"""Transposed convolutions of which every group has one input channel.

A matrix product over one channel is no more than a broadcast product, and slower: here each output
phase (see :mod:`mlxport.layers.conv.transpose_axes`) sums shifted inputs, each multiplied by the
weights of one tap, a weight for each channel.
"""

import math
from itertools import product

import mlx.core as mx

from mlxport.layers.conv.transpose_axes import Shifts, merge_phases, pairs, phases_of, window
from mlxport.layers.windows.geometry import TransposedAxis


def compute_depthwise(
    x: mx.array, weight: mx.array, bias: mx.array | None, axes: list[TransposedAxis]
) -> mx.array:
    """The transposed convolution in ``G`` groups.

    Args:
        x: ``(N, *S, G)``.
        weight: ``(G * C, *k, 1)``, of the input's dtype.
        bias: ``(G * C,)`` or ``None``, of the input's dtype.
        axes: One for each spatial axis.

    Returns:
        ``(N, *O, G * C)`` of the input's dtype.
    """
    groups, rank = x.shape[-1], len(axes)
    channels = weight.shape[0] // groups
    x = mx.repeat(x, channels, axis=-1) if channels > 1 else x
    kernels = weight.shape[1:-1]
    # Split, not indexed: an integer index is a gather, and its gradient a scatter.
    columns = mx.split(mx.moveaxis(weight, 0, -1).flatten(0, -2), math.prod(kernels))
    taps = dict(zip(product(*map(range, kernels)), columns, strict=True))
    plans = [phases_of(axis) for axis in axes]
    lengths = [length for length, _ in plans]
    rows = Shifts(x, 1, plans)
    sums = [
        _sum([(taps[tap], rows[shift]) for tap, shift in pairs(meetings)])
        if all(meetings)
        else mx.zeros((x.shape[0], *lengths, x.shape[-1]), x.dtype)
        for meetings in product(*(meetings for _, meetings in plans))
    ]
    y = mx.unflatten(mx.stack(sums), 0, [len(meetings) for _, meetings in plans])
    y = mx.unflatten(y, -1, (groups, channels))
    order = [place for index in range(rank) for place in (rank + 1 + index, index)]
    y = merge_phases(y, [rank, *order, y.ndim - 2, y.ndim - 1], rank, bias)
    for index, axis in enumerate(axes, 1):
        y = window(y, index, 0, axis.output)
    return y


def _sum(terms: list[tuple[mx.array, mx.array]]) -> mx.array:
    total = terms[0][0] * terms[0][1]
    for tap, rows in terms[1:]:
        total = total + tap * rows
    return total
