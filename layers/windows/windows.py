"""Sliding windows over spatial axes: their geometry, checked as PyTorch checks it, and their taps.

A window of ``kernel`` taps is handled one axis at a time: tap ``t`` of all windows of an axis is
one strided slice, so an operation over windows is a few elementwise operations over slices.
"""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from mlxport.layers.windows.geometry import check_hyperparameters, ints_per_axis


class Windows(NamedTuple):
    """The windows along one spatial axis: window ``i`` starts at ``i * stride - padding``."""

    axis: int
    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    outputs: int

    @property
    def tail(self) -> int:
        """How far the last window reaches beyond the axis; negative where it ends before."""
        reach = (self.outputs - 1) * self.stride + self.dilation * (self.kernel - 1) + 1
        return reach - self.size - self.padding

    @property
    def are_blocks(self) -> bool:
        """Whether the windows cut the axis into blocks side by side, nothing padded."""
        touching = self.kernel == self.stride and self.dilation == 1
        return touching and self.padding == 0 and self.tail <= 0

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
    """The windows of a pooling over the spatial axes of ``(N, *S, C)`` or ``(*S, C)``.

    ``kernel_size`` has one number per spatial axis. Its length says which axes are spatial.

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
    """The number of spatial axes, told by an argument that holds one entry for each.

    Raises:
        ValueError: it is a plain number, which cannot tell ``(N, L, C)`` from ``(H, W, C)``.
    """
    if not isinstance(values, Sequence) or len(values) == 0:
        raise ValueError(
            f"[{layer}] '{name}' must be a tuple with one entry per spatial axis but got "
            f"{values!r}: its length tells the spatial axes of (N, *S, C) or (*S, C)."
        )
    return len(values)


def first_spatial_axis(layer: str, x: mx.array, rank: int) -> int:
    """The first spatial axis: 1, or 0 where the batch axis is left out.

    Raises:
        ValueError: ``x`` has neither ``rank + 2`` nor ``rank + 1`` axes.
    """
    if x.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"[{layer}] input must have {rank + 2} dimensions (N, *spatial, channels), or "
            f"{rank + 1} without the batch, but got shape {x.shape}."
        )
    return x.ndim - 1 - rank


def padded(x: mx.array, windows: Sequence[Windows], value: float) -> mx.array:
    """Return ``x`` with ``value`` around it wherever a window reaches beyond."""
    widths = [(0, 0)] * x.ndim
    for window in windows:
        widths[window.axis] = (window.padding, max(window.tail, 0))
    if all(width == (0, 0) for width in widths):
        return x
    return mx.pad(x, widths, constant_values=mx.array(value, dtype=x.dtype))


def taps(x: mx.array, windows: Windows) -> list[mx.array]:
    """Tap 0, 1, … of every window of an axis; ``x`` is padded already.

    Each has the shape of ``x`` with ``windows.outputs`` in place of the axis.
    """
    length = (windows.outputs - 1) * windows.stride + 1
    return [
        sliced(x, windows.axis, start, start + length, windows.stride)
        for start in range(0, windows.kernel * windows.dilation, windows.dilation)
    ]


def split_into_blocks(x: mx.array, windows: Windows) -> mx.array:
    """Return ``x`` with the axis split into ``(outputs, kernel)``; the windows are blocks."""
    whole = sliced(x, windows.axis, 0, windows.outputs * windows.kernel)
    return mx.unflatten(whole, windows.axis, (windows.outputs, windows.kernel))


def sliced(x: mx.array, axis: int, start: int | None, stop: int | None, step: int = 1) -> mx.array:
    """``x[start:stop:step]`` on one axis."""
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def taken(x: mx.array, axis: int, indices: mx.array) -> mx.array:
    """``x[indices]`` on one axis; on the CPU several times faster than ``mx.take``."""
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
