"""im2col and col2im (PyTorch's unfold and fold) of images, channels last; MLX has neither.

A column is one block of the image in PyTorch's order: channel, then row, then column of the kernel.
"""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.windows.geometry import check_hyperparameters, ints_per_axis
from mlxport.layers.windows.windows import Windows, first_spatial_axis, slice_axis, window_taps

_ARGUMENTS = ("kernel_size", "dilation", "padding", "stride")


def unfold(
    x: mx.array,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> mx.array:
    """Extract sliding blocks; matches ``aten::im2col`` (``torch.nn.functional.unfold``).

    Args:
        x: ``(N, H, W, C)`` or ``(H, W, C)``.
        kernel_size: ``(kH, kW)``.
        dilation: distance between the taps of a block.
        padding: zeros on both sides.
        stride: distance between blocks.

    Returns:
        ``(N, L, C·kH·kW)`` or ``(L, C·kH·kW)``, ``L`` the number of blocks, row by row.

    Raises:
        ValueError: an argument is out of range, no block fits, or ``x`` has another rank.
    """
    first = first_spatial_axis("unfold", x, 2)
    arguments = _expanded("unfold", (kernel_size, dilation, padding, stride))
    windows = _windows("unfold", x.shape[first:-1], arguments, first)
    widths = [(0, 0)] * x.ndim
    for window in windows:
        widths[window.axis] = (window.padding, window.padding)
    x = mx.pad(x, widths) if any(map(any, widths)) else x
    # (…, oH, oW, C) to (…, oH, oW, C, kH, kW)
    for window in windows:
        x = mx.stack(window_taps(x, window), axis=-1)
    leading, outputs = x.shape[:first], x.shape[first] * x.shape[first + 1]
    columns = x.shape[first + 2] * x.shape[first + 3] * x.shape[first + 4]
    return x.reshape(*leading, outputs, columns)


def fold(
    x: mx.array,
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> mx.array:
    """Sum blocks where they overlap; matches ``aten::col2im`` (``torch.nn.functional.fold``).

    Args:
        x: ``(N, L, C·kH·kW)`` or ``(L, C·kH·kW)``, as :func:`unfold` returns it.
        output_size: ``(H, W)``.
        kernel_size: ``(kH, kW)``.
        dilation: as for :func:`unfold`.
        padding: as for :func:`unfold`.
        stride: as for :func:`unfold`.

    Returns:
        ``(N, H, W, C)`` or ``(H, W, C)`` in the dtype of ``x``.

    Raises:
        ValueError: an argument is out of range, or the numbers of blocks or columns do not fit.
    """
    first = first_spatial_axis("fold", x, 1)
    arguments = _expanded("fold", (kernel_size, dilation, padding, stride))
    sizes = ints_per_axis(output_size, 2, "output_size", "fold")
    windows = _windows("fold", sizes, arguments, first)
    (rows, columns), (tall, wide) = [w.outputs for w in windows], [w.kernel for w in windows]
    if x.shape[-2] != rows * columns or x.shape[-1] % (tall * wide):
        raise ValueError(
            f"[fold] input must have {rows * columns} blocks of a multiple of {tall * wide} "
            f"elements for output_size={sizes} but got shape {x.shape}."
        )
    channels = x.shape[-1] // (tall * wide)
    x = x.reshape(*x.shape[:first], rows, columns, channels, tall, wide)
    for window in reversed(windows):
        x = _overlapped(x, window)
    return x


def _overlapped(x: mx.array, window: Windows) -> mx.array:
    """Add tap ``t`` (last axis) of window ``i`` (``window.axis``) to the element it stands for."""
    shape = list(x.shape[:-1])
    shape[window.axis] = window.size + 2 * window.padding
    total = mx.zeros(shape, dtype=x.dtype)
    before = (slice(None),) * window.axis
    length = (window.outputs - 1) * window.stride + 1
    for tap in range(window.kernel):
        start = tap * window.dilation
        index = (*before, slice(start, start + length, window.stride))
        total = total.at[index].add(x[..., tap])
    return slice_axis(total, window.axis, window.padding, window.padding + window.size)


def _expanded(layer: str, values: tuple[int | Sequence[int], ...]) -> list[tuple[int, ...]]:
    pairs = zip(_ARGUMENTS, values, strict=True)
    kernel, dilation, padding, stride = (
        ints_per_axis(value, 2, name, layer) for name, value in pairs
    )
    check_hyperparameters(
        layer,
        {"kernel_size": kernel, "dilation": dilation, "stride": stride},
        {"padding": padding},
    )
    return [kernel, dilation, padding, stride]


def _windows(
    layer: str, sizes: Sequence[int], arguments: list[tuple[int, ...]], first: int
) -> list[Windows]:
    windows = []
    for i, (size, kernel, dilation, padding, stride) in enumerate(
        zip(sizes, *arguments, strict=True)
    ):
        count = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        windows.append(Windows(first + i, size, kernel, stride, padding, dilation, count))
    if min(window.outputs for window in windows) < 1 or min(sizes) < 1:
        raise ValueError(
            f"[{layer}] no block of kernel_size={arguments[0]}, dilation={arguments[1]} fits the "
            f"spatial size {tuple(sizes)} with padding={arguments[2]}."
        )
    return windows


class Unfold(nn.Module):
    """:func:`unfold` with fixed arguments; matches ``torch.nn.Unfold``.

    Shape:
        - Input: ``(N, H, W, C)`` or ``(H, W, C)``
        - Output: ``(N, L, C·kH·kW)`` or ``(L, C·kH·kW)``
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = _expanded(
            "Unfold", (kernel_size, dilation, padding, stride)
        )

    def _extra_repr(self) -> str:
        return ", ".join(f"{name}={self[name]}" for name in _ARGUMENTS)

    def __call__(self, x: mx.array) -> mx.array:
        """Extract blocks of ``(N, H, W, C)`` or ``(H, W, C)``."""
        return unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(nn.Module):
    """:func:`fold` with fixed arguments; matches ``torch.nn.Fold``.

    Shape:
        - Input: ``(N, L, C·kH·kW)`` or ``(L, C·kH·kW)``
        - Output: ``(N, H, W, C)`` or ``(H, W, C)``
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        self.output_size = ints_per_axis(output_size, 2, "output_size", "Fold")
        self.kernel_size, self.dilation, self.padding, self.stride = _expanded(
            "Fold", (kernel_size, dilation, padding, stride)
        )

    def _extra_repr(self) -> str:
        names = ("output_size", *_ARGUMENTS)
        return ", ".join(f"{name}={self[name]}" for name in names)

    def __call__(self, x: mx.array) -> mx.array:
        """Sum the blocks of ``(N, L, C·kH·kW)`` or ``(L, C·kH·kW)``."""
        return fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)
