"""Convolutions of volumes by matrix products, for the CPU.

With stride 1 a convolution is the transposed one with the kernel flipped, whose products read the
input in slabs, each tap of the first axis in place. MLX's convolution writes every tap of every
position to memory first.
"""

import math

import mlx.core as mx

from mlxport.layers.conv.transpose_phases import compute_transposed
from mlxport.layers.device.policy import device_policy
from mlxport.layers.windows.geometry import TransposedAxis


def products_may_serve(kernel: tuple[int, ...], strides: tuple[int, ...], groups: int) -> bool:
    """Whether matrix products are faster for some inputs, on a CPU."""
    return len(kernel) == 3 and math.prod(kernel) > 1 == max(strides) == groups


def products_serve(
    x: mx.array,
    weight: mx.array,
    strides: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    dilations: tuple[int, ...],
    groups: int,
) -> bool:
    """Whether matrix products are faster than MLX's convolution, on MLX's default device.

    They are where MLX unfolds much, and more than the products would write.

    Args:
        x: ``(N, *S, I)``.
        weight: ``(C, *k, I)``.
        strides: One for each spatial axis.
        low: The zeros before each axis.
        high: The zeros after each axis.
        dilations: One for each spatial axis.
        groups: The number of groups.
    """
    limit, kernel = device_policy().unfolded_elements, weight.shape[1:-1]
    if limit is None or not products_may_serve(kernel, strides, groups):
        return False
    axes = _axes(x, kernel, low, high, dilations)
    positions = x.shape[0] * math.prod(axis.output for axis in axes)
    channels, inputs = weight.shape[0], weight.shape[-1]
    unfolded = math.prod(kernel) * inputs
    written = kernel[1] * inputs + kernel[0] * kernel[2] * channels
    return positions * unfolded > limit and written < unfolded


def convolve_by_products(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    low: tuple[int, ...],
    high: tuple[int, ...],
    dilations: tuple[int, ...],
) -> mx.array:
    """Compute a convolution of stride 1 by matrix products.

    Args:
        x: ``(N, *S, I)``.
        weight: ``(C, *k, I)``.
        bias: ``(C,)`` or ``None``.
        low: The zeros before each axis.
        high: The zeros after each axis.
        dilations: One for each spatial axis.

    Returns:
        ``(N, *O, C)`` of the input's dtype.
    """
    kernel = weight.shape[1:-1]
    flipped = weight[(slice(None),) + (slice(None, None, -1),) * len(kernel)]
    return compute_transposed(x, flipped, bias, _axes(x, kernel, low, high, dilations), 1)


def _axes(
    x: mx.array,
    kernel: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    dilations: tuple[int, ...],
) -> list[TransposedAxis]:
    """Return the axes of the transposed convolution with the flipped kernel."""
    reaches = [step * (taps - 1) for step, taps in zip(dilations, kernel, strict=True)]
    return [
        TransposedAxis(
            size=size,
            kernel=taps,
            stride=1,
            dilation=step,
            offset=reach - before,
            output=size + before + after - reach,
        )
        for size, taps, step, reach, before, after in zip(
            x.shape[1:-1], kernel, dilations, reaches, low, high, strict=True
        )
    ]
