"""The arithmetic of a transposed convolution, without a multiplication by an inserted zero.

Where no two taps meet (``kernel_size <= stride`` on every axis) the result is one matrix product
of the input with all taps, laid out anew. Otherwise the output falls into phases, its residues
modulo the stride, and each phase sums its own taps, every one shifted by whole rows. On all axes
but the last that sum is part of the matrix product: the shifted inputs stand side by side, as
more channels, and each phase has a product of its own. On the last axis the product gives the
taps apart, in the order of the output, and blocks of ``stride`` taps are added where they overlap.

Shapes: ``G`` groups, ``N`` batch, ``*S`` input and ``*O`` output sizes, ``*k`` taps, ``I`` and
``C`` the input and output channels of one group.
"""

import math
from collections.abc import Callable
from itertools import product

import mlx.core as mx

from mlxport.layers.conv.transpose_axes import (
    Shifts,
    merge_phases,
    overlap,
    pairs,
    phases_of,
    taps_stay_apart,
    window,
)
from mlxport.layers.conv.transpose_depthwise import compute_depthwise
from mlxport.layers.windows.geometry import TransposedAxis

# What the matrix products of a slab read and write: small beside memory, large beside a kernel's
# launch. On the CPU less than all is also faster, since that memory is used again.
SLAB_BYTES = 1 << 24


def compute(
    x: mx.array, weight: mx.array, bias: mx.array | None, axes: list[TransposedAxis], groups: int
) -> mx.array:
    """The transposed convolution of operands already checked.

    Half precision is summed in float32 and rounded once, save where MLX sums by itself.

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
    blocks = all(taps_stay_apart(axis) for axis in axes)
    if not blocks and _convolution_serves(x, axes, groups):
        y = _convolve(x, weight, axes, groups)
        return y if bias is None else y + bias
    dtype = _summing_dtype(x, blocks)
    inputs, taps = x.astype(dtype), weight.astype(dtype)
    bias = None if bias is None else bias.astype(dtype)
    if not blocks and groups == x.shape[-1] > 1:
        row_bytes = inputs.nbytes // groups // axes[0].size * weight.size  # a product per tap
        y = _in_slabs(
            lambda rows, slab: compute_depthwise(rows, taps, bias, slab), inputs, 1, axes, row_bytes
        )
    else:
        y = _by_products(inputs, taps, bias, axes, groups, blocks)
    return y.astype(x.dtype)


def _convolution_serves(x: mx.array, axes: list[TransposedAxis], groups: int) -> bool:
    """Whether MLX's convolution is to do it: stride 1 on every axis, on a GPU.

    There it gathers the input tile by tile inside its kernel, where the products below would have
    the gathered input written out and read again. MLX's CPU backend writes it out itself, kernel
    and all, and takes a scalar loop for the gradient.
    """
    on_gpu = mx.default_device().type == mx.gpu
    # MLX convolves float64 in float32, and in 3-D without groups.
    native = x.dtype != mx.float64 and (groups == 1 or len(axes) < 3)
    return on_gpu and native and all(axis.stride == 1 for axis in axes)


def _summing_dtype(x: mx.array, blocks: bool) -> mx.Dtype:
    """The dtype of the products: float32 for half precision whose products are summed here.

    Within a matrix product a GPU sums in float32 by itself; the CPU does, too, but several times
    slower than it multiplies float32.
    """
    on_gpu = mx.default_device().type == mx.gpu
    return x.dtype if x.dtype == mx.float64 or (blocks and on_gpu) else mx.float32


def _convolve(x: mx.array, weight: mx.array, axes: list[TransposedAxis], groups: int) -> mx.array:
    """Stride 1 on every axis: the convolution with the flipped kernel."""
    # Negative padding makes MLX crop the input; that is right while nothing dilates the input.
    low = [axis.dilation * (axis.kernel - 1) - axis.offset for axis in axes]
    high = [axis.output - axis.size + axis.offset for axis in axes]
    dilations = [axis.dilation for axis in axes]
    return mx.conv_general(x, weight, 1, (low, high), dilations, groups=groups, flip=True)


def _by_products(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    axes: list[TransposedAxis],
    groups: int,
    blocks: bool,
) -> mx.array:
    """By matrix products of ``(G, N, *S, I)`` and ``(G, C, *k, I)``, in slabs."""
    weight = mx.unflatten(weight, 0, (groups, weight.shape[0] // groups))
    # A split, not a transpose: under a shapeless compile MLX refuses it, while `_multiply` would
    # keep the traced shape without a word.
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


def _multiply(x: mx.array, weight: mx.array) -> mx.array:
    """``(G, N, *L, K)`` by ``(G, columns, K)`` to ``(G, N, *L, columns)``."""
    columns = weight.swapaxes(1, 2)
    if x.shape[0] == 1:
        return mx.expand_dims(x.squeeze(0) @ columns.squeeze(0), 0)
    return mx.unflatten(x.flatten(1, -2) @ columns, 1, x.shape[1:-1])


def _place_blocks(
    x: mx.array, weight: mx.array, bias: mx.array | None, axes: list[TransposedAxis]
) -> mx.array:
    """The taps of each input side by side, widened to the stride; ``(N, *O, G * C)``."""
    rank, kernels = len(axes), weight.shape[2:-1]
    y = _multiply(x, mx.moveaxis(weight, 1, -2).flatten(1, -2))
    y = mx.unflatten(y, -1, (*kernels, weight.shape[1]))
    for index, axis in enumerate(axes, 2):
        y = window(y, index, 0, -(-(axis.offset + axis.output) // axis.stride))
        y = window(y, index + rank, 0, axis.stride)
    order = [place for index in range(2, 2 + rank) for place in (index, index + rank)]
    y = merge_phases(y, [1, *order, 0, 2 + 2 * rank], rank, bias)
    for index, axis in enumerate(axes, 1):
        y = window(y, index, axis.offset, axis.output)
    return y


def _in_slabs(
    function: Callable[[mx.array, list[TransposedAxis]], mx.array],
    x: mx.array,
    index: int,
    axes: list[TransposedAxis],
    row_bytes: int,
) -> mx.array:
    """The results of slabs of the leading axis, ``x``'s axis ``index``, one after the other."""
    leading, *others = axes
    slabs = _slabs(x, index, leading, row_bytes)
    results = [function(rows, [slab, *others]) for rows, slab in slabs]
    return mx.concatenate(results, 1) if len(results) > 1 else results[0]


def _slabs(
    x: mx.array, index: int, axis: TransposedAxis, row_bytes: int
) -> list[tuple[mx.array, TransposedAxis]]:
    """The input rows of slabs of the output that are small enough, with the axis of each."""
    if axis.output <= axis.stride or axis.size * row_bytes <= SLAB_BYTES:
        return [(x, axis)]
    # By halves: cut from the whole input, each slab would have a gradient as large as the input.
    middle = -(-axis.output // 2 // axis.stride) * axis.stride
    halves = []
    for start, stop in ((0, middle), (middle, axis.output)):
        offset = axis.offset + start
        first = -((axis.dilation * (axis.kernel - 1) - offset) // axis.stride)
        first = min(max(first, 0), axis.size - 1)
        last = (axis.offset + stop - 1) // axis.stride
        size = min(max(last, first), axis.size - 1) + 1 - first
        half = axis._replace(size=size, offset=offset - first * axis.stride, output=stop - start)
        halves += _slabs(window(x, index, first, size), index, half, row_bytes)
    return halves


def _row_bytes(x: mx.array, weight: mx.array, axes: list[TransposedAxis]) -> int:
    """What the matrix products over one row of the leading axis read and write, all phases."""
    gathered, summed = _gathered(axes)
    reads = math.prod(axis.kernel for axis in gathered) * x.shape[-1]
    writes = math.prod(min(axis.stride, axis.kernel) for axis in gathered) * weight.shape[1]
    for axis in summed:
        writes *= axis.kernel
    positions = x.size // x.shape[-1] // axes[0].size
    return positions * (reads + writes) * x.itemsize


def _gathered(axes: list[TransposedAxis]) -> tuple[list[TransposedAxis], list[TransposedAxis]]:
    """The axes whose taps are summed inside the products, and the one after them, if any.

    A dilated last axis is gathered, too: its taps do not lie in the order of the output.
    """
    count = len(axes) - (axes[-1].dilation == 1)
    return axes[:count], axes[count:]


def _interleave(
    x: mx.array, weight: mx.array, bias: mx.array | None, axes: list[TransposedAxis]
) -> mx.array:
    """Each phase of the gathered axes by a matrix product of its own; ``(N, *O, G * C)``."""
    gathered, summed = _gathered(axes)
    plans = [phases_of(axis) for axis in gathered]
    rows, columns = Shifts(x, 2, plans), _taps(weight, len(gathered))
    outputs = (*(length for length, _ in plans), *(axis.output for axis in summed))
    parts = []
    for meetings in product(*(meetings for _, meetings in plans)):
        met = pairs(meetings)
        if met:
            y = _multiply(
                mx.concatenate([rows[shift] for _, shift in met], -1),
                mx.concatenate([columns[tap] for tap, _ in met], -1).flatten(1, 2),
            )
            parts.append(overlap(y, *summed) if summed else y)
        else:
            parts.append(mx.zeros((*x.shape[:2], *outputs, weight.shape[1]), x.dtype))
    # (*phases, G, N, *rows, ..., C)
    y = mx.unflatten(mx.stack(parts), 0, [len(m) for _, m in plans]) if plans else parts[0]
    count = len(plans)
    order = [place for index in range(count) for place in (count + 2 + index, index)]
    order = [count + 1, *order, *range(2 * count + 2, y.ndim - 1), count, y.ndim - 1]
    y = merge_phases(y, order, count, bias)
    for index, axis in enumerate(gathered, 1):
        y = window(y, index, 0, axis.output)
    return y


def _taps(weight: mx.array, gathered: int) -> dict[tuple[int, ...], mx.array]:
    """The columns ``(G, taps of the last axis, C, I)`` of each tap of the gathered axes."""
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
