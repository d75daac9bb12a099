"""Transposed convolution as matrix products, without multiplying inserted zeros.

Where taps do not overlap (``kernel_size <= stride`` on every axis) the result is one matrix product
of the input with all taps, reshaped. Otherwise the output falls into phases, its residues modulo
the stride, and each phase is the sum of its taps, each shifted by whole rows. On all axes but the
last that sum is part of the matrix products (:mod:`mlxport.layers.conv.transpose_products`). On the
last axis they return the taps separately, in the order of the output, and blocks of ``stride`` taps
are added where they overlap.
:mod:`mlxport.layers.device.policy` has what depends on the device.

Shapes: ``G`` groups, ``N`` batch, ``*S`` input and ``*O`` output sizes, ``*k`` taps, ``I`` and
``C`` the input and output channels of one group.
"""

import math
from collections.abc import Callable
from itertools import product

import mlx.core as mx

from mlxport.layers.conv.transpose_axes import (
    add_overlapping_taps,
    crop_or_pad,
    merge_phases,
    output_phases,
    taps_do_not_overlap,
)
from mlxport.layers.conv.transpose_depthwise import compute_depthwise
from mlxport.layers.conv.transpose_products import PhaseProducts, multiply
from mlxport.layers.device.policy import DevicePolicy, device_policy
from mlxport.layers.windows.geometry import TransposedAxis


def compute_transposed(
    x: mx.array, weight: mx.array, bias: mx.array | None, axes: list[TransposedAxis], groups: int
) -> mx.array:
    """Compute the transposed convolution of operands that are checked already.

    Half precision is summed in float32 and rounded once on the CPU; on a GPU each matrix product
    is, and at most two of them are added.

    Args:
        x: ``(N, *S, G * I)``.
        weight: ``(G * C, *k, I)``.
        bias: ``(G * C,)`` or ``None``.
        axes: One for each spatial axis.
        groups: ``G``.

    Returns:
        ``(N, *O, G * C)`` of the input's dtype.
    """
    if x.shape[0] == 0:  # the gradient of MLX's convolution of nothing ends the process
        return mx.zeros((0, *(axis.output for axis in axes), weight.shape[0]), x.dtype)
    policy = device_policy()
    blocks = all(taps_do_not_overlap(axis) for axis in axes)
    if not blocks and policy.native_convolution and _convolution_serves(x, weight, axes, groups):
        y = _convolve(x, weight, axes, groups)
        return y if bias is None else y + bias
    depthwise = not blocks and groups == x.shape[-1] > 1
    dtype = _summing_dtype(x.dtype, depthwise, policy)
    inputs, taps = x.astype(dtype), weight.astype(dtype)
    bias = None if bias is None else bias.astype(dtype)
    if depthwise:
        row_bytes = inputs.nbytes // groups // axes[0].size * weight.size  # one product per tap
        y = _in_slabs(
            lambda rows, slab: compute_depthwise(rows, taps, bias, slab), inputs, 1, axes, row_bytes
        )
    else:
        y = _by_products(inputs, taps, bias, axes, groups, blocks)
    return y.astype(x.dtype)


def _convolution_serves(
    x: mx.array, weight: mx.array, axes: list[TransposedAxis], groups: int
) -> bool:
    """Whether MLX's convolution is right on a GPU, and multiplies no inserted zeros there."""
    if x.dtype == mx.float64:  # MLX convolves it in float32
        return False
    if all(axis.stride == 1 for axis in axes):
        return groups == 1 or len(axes) < 3  # in 3-D MLX has no groups
    # Only this kernel skips the zeros. Padding beyond the kernel's reach gives another shape.
    return (
        len(axes) == 2
        and groups == 1
        and x.shape[-1] % 16 == weight.shape[0] % 16 == 0
        and all(axis.offset <= axis.dilation * (axis.kernel - 1) for axis in axes)
    )


def _summing_dtype(dtype: mx.Dtype, depthwise: bool, policy: DevicePolicy) -> mx.Dtype:
    """Return the dtype of products and sums for inputs of a dtype."""
    if dtype == mx.float64 or (policy.half_products and not depthwise):
        return dtype
    return mx.float32


def _convolve(x: mx.array, weight: mx.array, axes: list[TransposedAxis], groups: int) -> mx.array:
    """Compute by MLX's convolution with the flipped kernel."""
    strides = [axis.stride for axis in axes]
    dilations = [axis.dilation for axis in axes]
    reaches = [axis.dilation * (axis.kernel - 1) for axis in axes]
    spread = [(axis.size - 1) * axis.stride + 1 for axis in axes]
    # With output beyond what the taps reach, MLX's gradient of a dilated input is too short; as
    # long as the input is not dilated, negative padding, by which MLX crops it, is right, too.
    dilated = max(strides) > 1
    ends = [
        min(axis.output, size + reach - axis.offset) if dilated else axis.output
        for axis, size, reach in zip(axes, spread, reaches, strict=True)
    ]
    low = [reach - axis.offset for axis, reach in zip(axes, reaches, strict=True)]
    high = [end - size + a.offset for a, end, size in zip(axes, ends, spread, strict=True)]
    y = mx.conv_general(
        x, weight, 1, (low, high), dilations, input_dilation=strides, groups=groups, flip=True
    )
    for index, axis in enumerate(axes, 1):
        y = crop_or_pad(y, index, 0, axis.output)
    return y


def _by_products(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    axes: list[TransposedAxis],
    groups: int,
    blocks: bool,
) -> mx.array:
    """Compute by matrix products of ``(G, N, *S, I)`` and ``(G, C, *k, I)``, in slabs."""
    weight = mx.unflatten(weight, 0, (groups, weight.shape[0] // groups))
    # A split, not a transpose: a shapeless compile refuses a split, while it would silently keep
    # the traced shape in `multiply`.
    x = mx.stack([*mx.split(x, groups, -1)]) if groups > 1 else mx.expand_dims(x, 0)
    if blocks:
        return _place_blocks(x, weight, bias, axes)
    return _in_slabs(
        lambda rows, slab: _interleave(rows, weight, bias, slab),
        x,
        2,
        axes,
        _row_bytes(x, weight, axes),
    )


def _place_blocks(
    x: mx.array, weight: mx.array, bias: mx.array | None, axes: list[TransposedAxis]
) -> mx.array:
    """Place the taps of each input next to each other, padded to the stride; ``(N, *O, G * C)``."""
    rank, kernels = len(axes), weight.shape[2:-1]
    y = multiply(x, mx.moveaxis(weight, 1, -2).flatten(1, -2))
    y = mx.unflatten(y, -1, (*kernels, weight.shape[1]))
    for index, axis in enumerate(axes, 2):
        y = crop_or_pad(y, index, 0, -(-(axis.offset + axis.output) // axis.stride))
        y = crop_or_pad(y, index + rank, 0, axis.stride)
    order = [place for index in range(2, 2 + rank) for place in (index, index + rank)]
    y = merge_phases(y, [1, *order, 0, 2 + 2 * rank], rank, bias)
    for index, axis in enumerate(axes, 1):
        y = crop_or_pad(y, index, axis.offset, axis.output)
    return y


def _in_slabs(
    function: Callable[[mx.array, list[TransposedAxis]], mx.array],
    x: mx.array,
    index: int,
    axes: list[TransposedAxis],
    row_bytes: int,
) -> mx.array:
    """Concatenate the results of slabs of the first spatial axis, ``x``'s axis ``index``."""
    leading, *others = axes
    slabs = _slabs(x, index, leading, row_bytes)
    results = [function(rows, [slab, *others]) for rows, slab in slabs]
    return mx.concatenate(results, 1) if len(results) > 1 else results[0]


def _slabs(
    x: mx.array, index: int, axis: TransposedAxis, row_bytes: int
) -> list[tuple[mx.array, TransposedAxis]]:
    """Return the input rows of slabs of the output that are small enough, each with its axis."""
    if axis.output <= axis.stride or axis.size * row_bytes <= device_policy().slab_bytes:
        return [(x, axis)]
    # In halves: sliced from the whole input, each slab would have a gradient as large as that.
    middle = -(-axis.output // 2 // axis.stride) * axis.stride
    halves = []
    for start, stop in ((0, middle), (middle, axis.output)):
        offset = axis.offset + start
        first = -((axis.dilation * (axis.kernel - 1) - offset) // axis.stride)
        first = min(max(first, 0), axis.size - 1)
        last = (axis.offset + stop - 1) // axis.stride
        size = min(max(last, first), axis.size - 1) + 1 - first
        half = axis._replace(size=size, offset=offset - first * axis.stride, output=stop - start)
        halves += _slabs(crop_or_pad(x, index, first, size), index, half, row_bytes)
    return halves


def _row_bytes(x: mx.array, weight: mx.array, axes: list[TransposedAxis]) -> int:
    """Return the bytes that the products of all phases read and write per input row."""
    gathered, summed = _gathered(axes, x.dtype)
    reads = math.prod(axis.kernel for axis in gathered) * x.shape[-1]
    writes = math.prod(min(axis.stride, axis.kernel) for axis in gathered) * weight.shape[1]
    for axis in summed:
        writes *= axis.kernel
    positions = x.size // x.shape[-1] // axes[0].size
    return positions * (reads + writes) * x.itemsize


def _gathered(
    axes: list[TransposedAxis], dtype: mx.Dtype
) -> tuple[list[TransposedAxis], list[TransposedAxis]]:
    """Return the axes whose taps are summed inside the products, and the last axis if it is not.

    A dilated last axis is summed inside, too: its taps are not in the order of the output. So are
    more than two of its taps in half precision, where each sum of two products rounds.
    """
    last = axes[-1]
    few = dtype in (mx.float32, mx.float64) or last.kernel <= 2 * last.stride
    count = len(axes) - (last.dilation == 1 and few)
    return axes[:count], axes[count:]


def _interleave(
    x: mx.array, weight: mx.array, bias: mx.array | None, axes: list[TransposedAxis]
) -> mx.array:
    """Compute each phase of the gathered axes by matrix products; ``(N, *O, G * C)``."""
    gathered, summed = _gathered(axes, x.dtype)
    plans = [output_phases(axis) for axis in gathered]
    outputs = (*(length for length, _ in plans), *(axis.output for axis in summed))
    products = PhaseProducts(x, weight, plans)
    parts = []
    for phase in product(*(phases for _, phases in plans)):
        if all(phase):
            y = products.sum(phase)
            parts.append(add_overlapping_taps(y, *summed) if summed else y)
        else:
            parts.append(mx.zeros((*x.shape[:2], *outputs, weight.shape[1]), x.dtype))
    # (*phases, G, N, *rows, ..., C)
    y = mx.unflatten(mx.stack(parts), 0, [len(m) for _, m in plans]) if plans else parts[0]
    count = len(plans)
    order = [place for index in range(count) for place in (count + 2 + index, index)]
    order = [count + 1, *order, *range(2 * count + 2, y.ndim - 1), count, y.ndim - 1]
    y = merge_phases(y, order, count, bias)
    for index, axis in enumerate(gathered, 1):
        y = crop_or_pad(y, index, 0, axis.output)
    return y
