"""Max, average and power-average pooling as PyTorch computes them, channels last.

``mlx.nn`` has max and average pooling without ``dilation``, ``ceil_mode``,
``count_include_pad=False``, ``divisor_override``, indices, and input without a batch axis. Where
several maxima are equal it divides the gradient among them; here the first takes it, as in PyTorch.

The functions take ``kernel_size`` as a tuple: its length is the number of spatial axes of
``(N, *S, C)`` or ``(*S, C)``. Other arguments may be one number for all axes.
"""

import math
from collections.abc import Sequence

import mlx.core as mx

from mlxport.layers.norm.statistics import upcast
from mlxport.layers.windows.windows import (
    Windows,
    pad_windows,
    pooling_windows,
    split_into_blocks,
    window_taps,
)


def max_pool(
    x: mx.array,
    kernel_size: Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> mx.array:
    """Return the maximum of every window; matches ``aten::max_pool1d``, ``2d`` and ``3d``.

    NaN in a window gives NaN. Padding is below every value.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``, floating or integer.
        kernel_size: one number per spatial axis.
        stride: None stands for ``kernel_size``.
        padding: on both sides, at most half the kernel.
        dilation: distance between the taps of a window.
        ceil_mode: also keep windows that extend beyond the padding at the end.

    Returns:
        ``(N, *S_out, C)`` or ``(*S_out, C)`` in the dtype of ``x``.

    Raises:
        ValueError: arguments that PyTorch refuses too, or no tuple as ``kernel_size``.
    """
    windows = pooling_windows("max_pool", x, kernel_size, stride, padding, dilation, ceil_mode)
    for window in reversed(windows):  # innermost axis first: a tie's gradient goes to the first
        x = _joined([_window_max(x, part) for part in window.apart()], window.axis)
    return x


def avg_pool(
    x: mx.array,
    kernel_size: Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> mx.array:
    """Return the mean of every window; matches ``aten::avg_pool1d``, ``2d`` and ``3d``.

    float16 and bfloat16 are summed in float32.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``, floating.
        kernel_size: one number per spatial axis.
        stride: None stands for ``kernel_size``.
        padding: zeros on both sides, at most half the kernel.
        ceil_mode: also keep windows that extend beyond the padding at the end; elements beyond it
            are never counted.
        count_include_pad: whether the padding's zeros count among the elements.
        divisor_override: divide the sum by this instead of by the number of elements.

    Returns:
        ``(N, *S_out, C)`` or ``(*S_out, C)`` in the dtype of ``x``.

    Raises:
        ValueError: arguments that PyTorch refuses too, no tuple as ``kernel_size``, or ``x`` is
            not floating.
    """
    windows = pooling_windows("avg_pool", x, kernel_size, stride, padding, ceil_mode=ceil_mode)
    if not mx.issubdtype(x.dtype, mx.floating):
        raise ValueError(f"[avg_pool] input must be of a floating dtype but got {x.dtype}.")
    if divisor_override == 0:
        raise ValueError("[avg_pool] 'divisor_override' must not be zero.")
    total = upcast(x)
    for window in reversed(windows):
        total = _joined([_window_sum(total, part) for part in window.apart()], window.axis)
    divisor = divisor_override or _window_sizes(windows, count_include_pad, total.dtype)
    return (total / divisor).astype(x.dtype)


def lp_pool(
    x: mx.array,
    norm_type: float,
    kernel_size: Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> mx.array:
    """Return ``(sum of x^p)^(1/p)`` of every window, as ``torch.nn.functional.lp_pool1d`` to 3d.

    No absolute value is taken: with an odd ``p`` a negative sum gives NaN, as in PyTorch. A window
    that ``ceil_mode`` cuts counts as if it were whole.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``, floating.
        norm_type: the exponent ``p``.
        kernel_size: one number per spatial axis.
        stride: None stands for ``kernel_size``.
        ceil_mode: also keep windows that extend beyond the end.

    Returns:
        ``(N, *S_out, C)`` or ``(*S_out, C)`` in the dtype of ``x``.

    Raises:
        ValueError: as :func:`avg_pool`.
    """
    mean = avg_pool(mx.power(x, norm_type), kernel_size, stride, ceil_mode=ceil_mode)
    return mx.power(mean * math.prod(kernel_size), 1.0 / norm_type)


def _lowest(dtype: mx.Dtype) -> float:
    return -math.inf if mx.issubdtype(dtype, mx.floating) else mx.iinfo(dtype).min


def _joined(parts: list[mx.array], axis: int) -> mx.array:
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=axis)


def _window_max(x: mx.array, window: Windows) -> mx.array:
    first, *others = window_taps(pad_windows(x, window, _lowest(x.dtype)), window)
    for tap in others:
        first = mx.maximum(tap, first)  # the earlier one second: a tie's gradient goes to that
    return first


def _window_sum(x: mx.array, window: Windows) -> mx.array:
    x = pad_windows(x, window, 0)
    if window.are_blocks:
        return split_into_blocks(x, window).sum(axis=window.axis + 1)
    first, *others = window_taps(x, window)
    return sum(others, first)


def _window_sizes(
    windows: Sequence[Windows], count_include_pad: bool, dtype: mx.Dtype
) -> float | mx.array:
    """Return the number of elements of each window, broadcastable; one number if all are equal."""
    lengths = [_lengths(window, count_include_pad) for window in windows]
    if all(len(set(axis)) == 1 for axis in lengths):
        return float(math.prod(axis[0] for axis in lengths))
    sizes = mx.array(1.0, dtype=dtype)
    for axis in lengths:
        sizes = sizes[..., None] * mx.array(axis, dtype=dtype)
    return sizes[..., None]


def _lengths(window: Windows, count_include_pad: bool) -> list[int]:
    margin = window.padding if count_include_pad else 0
    return [
        min(start + window.kernel, window.size + margin) - max(start, -margin)
        for start in window.starts()
    ]
