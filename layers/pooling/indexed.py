"""Max pooling that returns the indices of the maxima, and max unpooling, channels last.

An index counts the elements of one channel of one sample in the order of the spatial axes:
``(d * H + h) * W + w``. It is PyTorch's index for the same values channels first.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.device.scatter_stream import scatter_stream
from mlxport.layers.windows.geometry import check_hyperparameters, ints_per_axis
from mlxport.layers.windows.windows import (
    Windows,
    first_spatial_axis,
    pad_windows,
    pooling_windows,
    spatial_rank,
    window_taps,
)


def max_pool_with_indices(
    x: mx.array,
    kernel_size: Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> tuple[mx.array, mx.array]:
    """Return the maximum of every window and its index; as ``aten::max_pool2d_with_indices``.

    Matches the overloads for 1 to 3 axes. Of equal maxima the first is returned, of several NaN the
    last, as in PyTorch. A window of nothing but padding (if the dilation exceeds the input) has
    index -1.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``, floating.
        kernel_size: one number per spatial axis.
        stride: None stands for ``kernel_size``.
        padding: on both sides, at most half the kernel.
        dilation: distance between the taps of a window.
        ceil_mode: also keep windows that extend beyond the padding at the end.

    Returns:
        The maxima in the dtype of ``x`` and their indices in int64, both ``(N, *S_out, C)`` or
        ``(*S_out, C)``.

    Raises:
        ValueError: as :func:`mlxport.layers.pooling.functions.max_pool`.
    """
    layer = "max_pool_with_indices"
    windows = pooling_windows(layer, x, kernel_size, stride, padding, dilation, ceil_mode)
    indices = flat_indices(x, len(windows))
    for window in reversed(windows):
        parts = [_window_best(x, indices, part) for part in window.apart()]
        x, indices = (
            found[0] if len(found) == 1 else mx.concatenate(list(found), axis=window.axis)
            for found in zip(*parts, strict=True)
        )
    return x, mx.broadcast_to(indices, x.shape)


def _window_best(x: mx.array, indices: mx.array, window: Windows) -> tuple[mx.array, mx.array]:
    """Return the maxima of windows along an axis, and which of the indices they have."""
    best, *others = window_taps(pad_windows(x, window, -math.inf), window)
    best_index, *other_indices = window_taps(pad_windows(indices, window, -1), window)
    for tap, index in zip(others, other_indices, strict=True):
        replaces = (tap > best) | mx.isnan(tap) | (best_index < 0)
        best = mx.where(replaces, tap, best)
        best_index = mx.where(replaces, index, best_index)
    return best, best_index


def max_unpool(
    x: mx.array,
    indices: mx.array,
    kernel_size: Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> mx.array:
    """Put maxima back at their indices, zero elsewhere; as ``torch.nn.functional.max_unpool3d``.

    Matches ``max_unpool1d`` to ``max_unpool3d``. Indices are not checked: for one outside the
    output MLX has no error, where PyTorch has.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``.
        indices: of the same shape, as :func:`max_pool_with_indices` returns them.
        kernel_size: of the pooling, one number per spatial axis.
        stride: of the pooling; None stands for ``kernel_size``.
        padding: of the pooling.
        output_size: the spatial size before pooling; None stands for the smallest possible.

    Returns:
        ``(N, *output_size, C)`` or ``(*output_size, C)`` in the dtype of ``x``.

    Raises:
        ValueError: shapes do not fit, or no pooling of ``output_size`` gives the shape of ``x``.
    """
    rank = spatial_rank("max_unpool", "kernel_size", kernel_size)
    first = first_spatial_axis("max_unpool", x, rank)
    sizes = _unpooled_sizes(x.shape[first:-1], kernel_size, stride, padding, output_size)
    return max_unpool_to(x, indices, sizes)


def max_unpool_to(x: mx.array, indices: mx.array, output_size: Sequence[int]) -> mx.array:
    """Put values at their indices, zero elsewhere; matches ``aten::max_unpool2d`` and 3d.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``.
        indices: of the same shape, into an output of one channel and sample; not checked.
        output_size: one number per spatial axis.

    Returns:
        ``(N, *output_size, C)`` or ``(*output_size, C)`` in the dtype of ``x``.

    Raises:
        ValueError: ``indices`` have another shape, or ``x`` another number of axes.
    """
    first = first_spatial_axis(
        "max_unpool", x, spatial_rank("max_unpool", "output_size", output_size)
    )
    if indices.shape != x.shape:
        raise ValueError(
            f"[max_unpool] indices must have the input's shape {x.shape} but got {indices.shape}."
        )
    leading, channels = x.shape[:first], x.shape[-1]
    flat = (*leading, math.prod(x.shape[first:-1]), channels)
    zeros = mx.zeros((*leading, math.prod(output_size), channels), dtype=x.dtype)
    indices = mx.stop_gradient(indices).reshape(flat)  # MLX differentiates by indices, too
    with scatter_stream(x.dtype):
        filled = mx.put_along_axis(zeros, indices, x.reshape(flat), axis=first)
    return filled.reshape(*leading, *output_size, channels)


def flat_indices(x: mx.array, rank: int) -> mx.array:
    """Return the index of every element of ``x``, ``(*S, 1)`` or ``(1, *S, 1)`` in int64."""
    sizes = x.shape[-1 - rank : -1]
    shape = (*[1] * (x.ndim - 1 - rank), *sizes, 1)
    return mx.arange(math.prod(sizes), dtype=mx.int64).reshape(shape)


def _unpooled_sizes(
    sizes: Sequence[int],
    kernel_size: Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    output_size: Sequence[int] | None,
) -> tuple[int, ...]:
    rank = len(sizes)
    kernels = ints_per_axis(kernel_size, rank, "kernel_size", "max_unpool")
    strides = kernels if stride is None else ints_per_axis(stride, rank, "stride", "max_unpool")
    paddings = ints_per_axis(padding, rank, "padding", "max_unpool")
    check_hyperparameters(
        "max_unpool", {"kernel_size": kernels, "stride": strides}, {"padding": paddings}
    )
    steps = zip(sizes, kernels, strides, paddings, strict=True)
    default = tuple((size - 1) * step - 2 * pad + kernel for size, kernel, step, pad in steps)
    if output_size is None:
        return default
    wanted = ints_per_axis(output_size, rank, "output_size", "max_unpool", broadcast=False)
    # PyTorch's bounds: less than a stride away from the default, on either side.
    ranges = zip(wanted, default, strides, strict=True)
    if any(abs(size - least) >= step for size, least, step in ranges):
        raise ValueError(
            f"[max_unpool] 'output_size' must differ from {default} by less than "
            f"stride={strides} but got {wanted}."
        )
    return wanted


class _MaxUnpool(nn.Module):
    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.kernel_size = ints_per_axis(kernel_size, self.rank, "kernel_size", layer)
        self.stride = (
            self.kernel_size
            if stride is None
            else ints_per_axis(stride, self.rank, "stride", layer)
        )
        self.padding = ints_per_axis(padding, self.rank, "padding", layer)

    def _extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"

    def __call__(
        self, x: mx.array, indices: mx.array, output_size: Sequence[int] | None = None
    ) -> mx.array:
        return max_unpool(x, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool1d(_MaxUnpool):
    """:func:`max_unpool` of ``(N, L, C)`` or ``(L, C)``; matches ``torch.nn.MaxUnpool1d``."""

    rank = 1


class MaxUnpool2d(_MaxUnpool):
    """:func:`max_unpool` of ``(N, H, W, C)`` or ``(H, W, C)``; matches ``torch.nn.MaxUnpool2d``."""

    rank = 2


class MaxUnpool3d(_MaxUnpool):
    """:func:`max_unpool` of ``(N, D, H, W, C)`` or without ``N``; as ``torch.nn.MaxUnpool3d``."""

    rank = 3
