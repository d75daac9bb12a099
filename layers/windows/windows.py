"""Sliding windows as strided slices, one axis at a time, for pooling and im2col.

Tap ``t`` of all windows along an axis is one strided slice of the array. So an operation over
windows of ``kernel`` taps is ``kernel`` slices and a few elementwise operations.
"""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from mlxport.layers.windows.geometry import check_hyperparameters, ints_per_axis


class Windows(NamedTuple):
    """The windows along one spatial axis: window ``i`` starts at ``i * stride - padding``.

    Attributes:
        axis: The axis of the array.
        size: The length of the axis without padding.
        kernel: The number of taps of a window.
        stride: The distance of windows.
        padding: The number of elements padded on both sides.
        dilation: The distance of taps.
        outputs: The number of windows.
    """

    axis: int
    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    outputs: int

    @property
    def tail(self) -> int:
        """How far the last window extends beyond the axis; negative where it ends before."""
        reach = (self.outputs - 1) * self.stride + self.dilation * (self.kernel - 1) + 1
        return reach - self.size - self.padding

    @property
    def are_blocks(self) -> bool:
        """Whether the windows are adjacent blocks of the axis, without padding."""
        touching = self.kernel == self.stride and self.dilation == 1
        return touching and self.padding == 0 and self.tail <= 0

    def trimmed(self) -> "Windows":
        """Return the windows without the taps that lie beyond the axis in every one of them.

        The others lie where they did; where all begin inside the axis, the padding is negative.
        """
        last = (self.outputs - 1) * self.stride - self.padding
        skipped = min(max(-(last // self.dilation), 0), self.kernel - 1)
        stop = min((self.size - 1 + self.padding) // self.dilation + 1, self.kernel)
        return self._replace(
            kernel=max(stop - skipped, 1), padding=self.padding - skipped * self.dilation
        )

    def apart(self) -> list["Windows"]:
        """Return the windows trimmed, so that none extends beyond the axis by more than its size.

        One by one where they would together: memory follows the axis, however large the windows.
        """
        whole = self.trimmed()
        if max(whole.padding, whole.tail) <= max(self.size, self.stride):
            return [whole]
        first = self._replace(outputs=1)
        paddings = (-start for start in self.starts())
        return [first._replace(padding=padding).trimmed() for padding in paddings]

    def starts(self) -> list[int]:
        """Where each window starts on the axis; negative inside the padding."""
        return [i * self.stride - self.padding for i in range(self.outputs)]


def pooling_windows(
    layer: str,
    x: mx.array,
    kernel_size: Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> list[Windows]:
    """Return the windows of a pooling over the spatial axes of ``(N, *S, C)`` or ``(*S, C)``.

    Args:
        layer: The layer's or function's name, for the error.
        x: The input; of its values nothing is used.
        kernel_size: One number per spatial axis; its length says which axes are spatial.
        stride: None stands for ``kernel_size``.
        padding: On both sides, at most half the kernel.
        dilation: The distance of taps.
        ceil_mode: Whether to keep windows that extend beyond the padding at the end.

    Raises:
        ValueError: an argument is out of range, padding exceeds half the kernel, ``x`` has another
            number of axes, or no window fits.
    """
    rank = spatial_rank(layer, "kernel_size", kernel_size)
    kernels = ints_per_axis(kernel_size, rank, "kernel_size", layer)
    strides = kernels if stride is None else ints_per_axis(stride, rank, "stride", layer)
    paddings = ints_per_axis(padding, rank, "padding", layer)
    dilations = ints_per_axis(dilation, rank, "dilation", layer)
    check_hyperparameters(
        layer,
        {"kernel_size": kernels, "stride": strides, "dilation": dilations},
        {"padding": paddings},
    )
    if any(2 * pad > kernel for pad, kernel in zip(paddings, kernels, strict=True)):
        raise ValueError(
            f"[{layer}] 'padding' must be at most half of kernel_size={kernels} but got {paddings}."
        )
    first = first_spatial_axis(layer, x, rank)
    sizes = x.shape[first:-1]
    steps = zip(sizes, kernels, strides, paddings, dilations, strict=True)
    counts = [_count(*step, ceil_mode) for step in steps]
    if min(counts) < 1 or min(sizes) < 1:
        raise ValueError(
            f"[{layer}] no window of kernel_size={kernels}, dilation={dilations} fits the input "
            f"{x.shape} with padding={paddings}: the output would have spatial size {counts}."
        )
    columns = zip(sizes, kernels, strides, paddings, dilations, counts, strict=True)
    return [Windows(first + i, *column) for i, column in enumerate(columns)]


def spatial_rank(layer: str, name: str, values: Sequence[int | None] | int) -> int:
    """Return the number of spatial axes: the length of an argument with one entry for each.

    Args:
        layer: The layer's or function's name, for the error.
        name: The argument's name, for the error.
        values: The argument.

    Raises:
        ValueError: it is a plain number, which does not tell ``(N, L, C)`` from ``(H, W, C)``.
    """
    if not isinstance(values, Sequence) or len(values) == 0:
        raise ValueError(
            f"[{layer}] '{name}' must be a tuple with one entry per spatial axis but got "
            f"{values!r}: its length tells the spatial axes of (N, *S, C) or (*S, C)."
        )
    return len(values)


def first_spatial_axis(layer: str, x: mx.array, rank: int) -> int:
    """Return the first spatial axis: 1, or 0 for input without a batch axis.

    Raises:
        ValueError: ``x`` has neither ``rank + 2`` nor ``rank + 1`` axes.
    """
    if x.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"[{layer}] input must have {rank + 2} dimensions (N, *spatial, channels), or "
            f"{rank + 1} without the batch, but got shape {x.shape}."
        )
    return x.ndim - 1 - rank


def pad_windows(x: mx.array, windows: Windows, value: float) -> mx.array:
    """Return ``x`` padded with ``value`` as far as windows along an axis extend beyond it."""
    before, after = windows.padding, max(windows.tail, 0)
    if before < 0:
        x = slice_axis(x, windows.axis, -before, None)
    if before <= 0 and after == 0:
        return x
    widths = [(0, 0)] * x.ndim
    widths[windows.axis] = (max(before, 0), after)
    return mx.pad(x, widths, constant_values=mx.array(value, dtype=x.dtype))


def window_taps(x: mx.array, windows: Windows) -> list[mx.array]:
    """Return tap 0, 1, … of all windows along an axis of ``x``, which is padded already.

    Each has the shape of ``x`` with ``windows.outputs`` in place of the axis.
    """
    length = (windows.outputs - 1) * windows.stride + 1
    return [
        slice_axis(x, windows.axis, start, start + length, windows.stride)
        for start in range(0, windows.kernel * windows.dilation, windows.dilation)
    ]


def split_into_blocks(x: mx.array, windows: Windows) -> mx.array:
    """Return ``x`` with the axis of the windows, which are blocks, as ``(outputs, kernel)``."""
    whole = slice_axis(x, windows.axis, 0, windows.outputs * windows.kernel)
    return mx.unflatten(whole, windows.axis, (windows.outputs, windows.kernel))


def slice_axis(
    x: mx.array, axis: int, start: int | None, stop: int | None, step: int = 1
) -> mx.array:
    """Return ``x[start:stop:step]`` on one axis."""
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def take_on_axis(x: mx.array, axis: int, indices: mx.array) -> mx.array:
    """Return ``x[indices]`` on one axis; on the CPU several times faster than ``mx.take``."""
    return x[(slice(None),) * axis + (indices,)]


def _count(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    rest = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return rest // stride + 1
    count = -(-rest // stride) + 1
    # A window must start inside the input or the padding before it.
    return count - 1 if (count - 1) * stride >= size + padding else count
