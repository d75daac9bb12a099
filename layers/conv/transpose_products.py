"""Matrix products of shifted inputs with the taps of a transposed convolution, summed by phase.

The taps of a phase are summed inside a product: the inputs, each shifted for its tap, are
concatenated as further channels. On the CPU the taps of the outermost axis are summed by BLAS
instead, which adds a product to an array: rows shifted along that axis are one range of memory, so
nothing is copied for them.

Shapes: ``G`` groups, ``N`` batch, ``*S`` input sizes, ``*k`` taps, ``I`` and ``C`` the input and
output channels of one group.
"""

import math
from collections.abc import Sequence
from itertools import product

import mlx.core as mx

from mlxport.layers.conv.transpose_axes import (
    Ints,
    PhaseTaps,
    ShiftedRows,
    crop_or_pad,
    tap_combinations,
)
from mlxport.layers.device.policy import device_policy


class PhaseProducts:
    """The products of every phase of a transposed convolution.

    Args:
        x: ``(G, N, *S, I)``.
        weight: ``(G, C, *k, I)``.
        plans: The phases of the axes whose taps are summed inside the products, as
            :func:`output_phases` returns them. They are the first of the spatial axes.
    """

    def __init__(self, x: mx.array, weight: mx.array, plans: Sequence[tuple[int, PhaseTaps]]):
        self._columns = _columns(weight, len(plans))
        self._outer = plans[0] if len(plans) > 1 and device_policy().added_products else None
        self._start = 0
        if self._outer:  # its axis before the batch, so that its rows are ranges of memory
            x, self._start = _padded(x.swapaxes(1, 2), *self._outer)
        count = 1 if self._outer else 0
        self._rows = ShiftedRows(x, 2 + count, plans[count:])
        self._gathered: dict[tuple[Ints, ...], mx.array] = {}

    def sum(self, phase: Sequence[Sequence[tuple[int, int]]]) -> mx.array:
        """Return a phase, ``(G, N, *rows, columns)``.

        The columns are the output channels of every tap of the other axes: ``(taps, C)``.

        Args:
            phase: The taps of each axis, each with its shift; at least one of every axis.
        """
        outer, inner = (phase[:1], phase[1:]) if self._outer else ([], phase)
        combinations = tap_combinations(inner)
        x = self._gather([shift for _, shift in combinations])
        taps = [tap for tap, _ in combinations]
        if self._outer is None:
            return multiply(x, self._side(taps))
        y = self._add(x, self._outer[0], outer[0], taps)
        return y.swapaxes(1, 2)

    def _add(
        self, x: mx.array, length: int, outer: Sequence[tuple[int, int]], taps: Sequence[Ints]
    ) -> mx.array:
        """Add the products of every tap of the outermost axis, ``(G, rows, N, *rows, columns)``."""
        _, _, *inner, _ = x.shape
        plane, single = math.prod(inner), x.shape[0] == 1
        rows = x.flatten(1, -2)
        total: mx.array | None = None
        for first, shift in outer:
            slab = crop_or_pad(rows, 1, (self._start + shift) * plane, length * plane)
            columns = self._side([(first, *tap) for tap in taps]).swapaxes(1, 2)
            if single:
                slab, columns = slab.squeeze(0), columns.squeeze(0)
            total = slab @ columns if total is None else mx.addmm(total, slab, columns)
        assert total is not None
        y = mx.expand_dims(total, 0) if single else total
        return mx.unflatten(y, 1, (length, *inner))

    def _gather(self, shifts: Sequence[Ints]) -> mx.array:
        """Return the shifted rows side by side, each such array made once."""
        key = tuple(shifts)
        if key not in self._gathered:
            self._gathered[key] = mx.concatenate([self._rows[shift] for shift in key], -1)
        return self._gathered[key]

    def _side(self, taps: Sequence[Ints]) -> mx.array:
        """Return the columns of taps side by side, as the rows of their inputs are."""
        return mx.concatenate([self._columns[tap] for tap in taps], -1).flatten(1, 2)


def multiply(x: mx.array, weight: mx.array) -> mx.array:
    """Multiply ``(G, N, *L, K)`` by ``(G, columns, K)`` to ``(G, N, *L, columns)``."""
    columns = weight.swapaxes(1, 2)
    if x.shape[0] == 1:
        return mx.expand_dims(x.squeeze(0) @ columns.squeeze(0), 0)
    return mx.unflatten(x.flatten(1, -2) @ columns, 1, x.shape[1:-1])


def _padded(x: mx.array, length: int, phases: PhaseTaps) -> tuple[mx.array, int]:
    """Pad axis 1 as far as shifts reach; return also where its first row is then."""
    shifts = [shift for phase in phases for _, shift in phase] or [0]
    before = max(-min(shifts), 0)
    after = max(max(shifts) + length - x.shape[1], 0)
    return crop_or_pad(x, 1, -before, before + x.shape[1] + after), before


def _columns(weight: mx.array, gathered: int) -> dict[Ints, mx.array]:
    """Return the columns ``(G, taps of the other axes, C, I)`` of each tap of the gathered axes."""
    kernels = weight.shape[2 : 2 + gathered]
    if gathered == weight.ndim - 3:
        weight = mx.expand_dims(weight, -2)
    if not gathered:
        return {(): weight.swapaxes(1, 2)}
    # Splitting once, not slicing per tap, makes the gradient one concatenation.
    taps = mx.split(weight.flatten(2, 1 + gathered), math.prod(kernels), 2)
    return {
        place: tap.squeeze(2).swapaxes(1, 2)
        for place, tap in zip(product(*map(range, kernels)), taps, strict=True)
    }
