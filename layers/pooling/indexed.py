"""Max pooling that says where the maxima were, and its partial inverse, channels last.

An index counts the elements of one channel of one sample in the order of the spatial axes:
``(d * H + h) * W + w``. It is what PyTorch gives for the same values channels first.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.windows.geometry import check_hyperparameters, ints_per_axis
from mlxport.layers.windows.windows import (
    first_spatial_axis,
    padded,
    pooling_windows,
    spatial_rank,
    taps,
)


def max_pool_with_indices(
    x: mx.array,
    kernel_size: Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> tuple[mx.array, mx.array]:
    """Maximum of every window and its place; matches ``aten::max_pool2d_with_indices`` and kin.

    Of equal maxima the first is taken, of several NaN the last, as in PyTorch. A window that holds
    nothing but padding, which takes a dilation beyond the input, has index -1.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``, floating.
        kernel_size: one number per spatial axis.
        stride: None stands for ``kernel_size``.
        padding: on both sides, at most half the kernel.
        dilation: distance between the taps of a window.
        ceil_mode: also keep windows that reach beyond the padding at the end.

    Returns:
        The maxima in the dtype of ``x`` and their indices in int64, both ``(N, *S_out, C)`` or
        ``(*S_out, C)``.

    Raises:
        ValueError: as :func:`mlxport.layers.pooling.functions.max_pool`.
    """
    layer = "max_pool_with_indices"
    windows = pooling_windows(layer, x, kernel_size, stride, padding, dilation, ceil_mode)
    indices = padded(flat_indices(x, len(windows)), windows, -1)
    x = padded(x, windows, -math.inf)
    for window in reversed(windows):
        (best, *others), (place, *places) = taps(x, window), taps(indices, window)
        for tap, its_place in zip(others, places, strict=True):
            wins = (tap > best) | mx.isnan(tap) | (place < 0)
            best, place = mx.where(wins, tap, best), mx.where(wins, its_place, place)
        x, indices = best, place
    return x, mx.broadcast_to(indices, x.shape)


def max_unpool(
    x: mx.array,
    indices: mx.array,
    kernel_size: Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> mx.array:
    """Put maxima back where they were, zero elsewhere; as ``torch.nn.functional.max_unpool3d``.

    Indices are not checked: MLX has no error for one outside the output, where PyTorch has.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``.
        indices: of the same shape, as :func:`max_pool_with_indices` gives them.
        kernel_size: of the pooling undone, one number per spatial axis.
        stride: None stands for ``kernel_size``.
        padding: of the pooling undone.
        output_size: the spatial size before pooling; None gives the smallest it can have been.

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
    """Put values where their indices say, zero elsewhere; matches ``aten::max_unpool2d`` and 3d.

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
    blank = mx.zeros((*leading, math.prod(output_size), channels), dtype=x.dtype)
    places = mx.stop_gradient(indices).reshape(flat)  # MLX would derive by them
    filled = mx.put_along_axis(blank, places, x.reshape(flat), axis=first)
    return filled.reshape(*leading, *output_size, channels)


def flat_indices(x: mx.array, rank: int) -> mx.array:
    """The index of every element, ``(*S, 1)`` or ``(1, *S, 1)`` in int64."""
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
    # PyTorch's bounds: by less than a stride from the default, on either side.
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
    """:func:`max_unpool` of ``(N, L, C)`` or ``(L, C)``."""

    rank = 1


class MaxUnpool2d(_MaxUnpool):
    """:func:`max_unpool` of ``(N, H, W, C)`` or ``(H, W, C)``."""

    rank = 2


class MaxUnpool3d(_MaxUnpool):
    """:func:`max_unpool` of ``(N, D, H, W, C)`` or ``(D, H, W, C)``."""

    rank = 3
