"""Depthwise transposed convolutions: every group has one input channel.

A matrix product over one channel is a broadcast product, only slower. So each output phase (see
:mod:`mlxport.layers.conv.transpose_axes`) is a sum of shifted inputs, each multiplied by one tap's
weight of every channel.
"""

import math
from itertools import product

import mlx.core as mx

from mlxport.layers.conv.transpose_axes import (
    ShiftedRows,
    crop_or_pad,
    merge_phases,
    output_phases,
    tap_combinations,
)
from mlxport.layers.windows.geometry import TransposedAxis


def compute_depthwise(
    x: mx.array, weight: mx.array, bias: mx.array | None, axes: list[TransposedAxis]
) -> mx.array:
    """Compute a transposed convolution in ``G`` groups of one input channel.

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
    plans = [output_phases(axis) for axis in axes]
    lengths = [length for length, _ in plans]
    rows = ShiftedRows(x, 1, plans)
    sums = [
        _sum([(taps[tap], rows[shift]) for tap, shift in tap_combinations(phase)])
        if all(phase)
        else mx.zeros((x.shape[0], *lengths, x.shape[-1]), x.dtype)
        for phase in product(*(phases for _, phases in plans))
    ]
    y = mx.unflatten(mx.stack(sums), 0, [len(phases) for _, phases in plans])
    y = mx.unflatten(y, -1, (groups, channels))
    order = [place for index in range(rank) for place in (rank + 1 + index, index)]
    y = merge_phases(y, [rank, *order, y.ndim - 2, y.ndim - 1], rank, bias)
    for index, axis in enumerate(axes, 1):
        y = crop_or_pad(y, index, 0, axis.output)
    return y


def _sum(terms: list[tuple[mx.array, mx.array]]) -> mx.array:
    total = terms[0][0] * terms[0][1]
    for tap, rows in terms[1:]:
        total = total + tap * rows
    return total
