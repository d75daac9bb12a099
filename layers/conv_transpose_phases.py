"""The arithmetic of a transposed convolution, without a multiplication by an inserted zero.

Where no two taps meet (``kernel_size <= stride``) the result is one matrix product of the input
with all taps, and a reshape. Where every stride is 1 it is a plain convolution. Otherwise the
output falls into phases, its residues modulo the stride, and each phase sums its own taps, every
one shifted by whole rows. Along the leading axis that sum is part of the matrix product: the
shifted inputs stand side by side, as more channels. Along the others the product gives the taps
apart, they are added up, and the phases interleave.

Shapes: ``G`` groups, ``N`` batch, ``*S`` input and ``*O`` output sizes, ``*k`` taps, ``I`` and
``C`` the input and output channels of one group.
"""

import math

import mlx.core as mx

from mlxport.layers.conv_geometry import Axis
from mlxport.layers.conv_transpose_axes import interleave, phases_of, window
from mlxport.layers.conv_transpose_depthwise import compute_depthwise

# The matrix products of a slab: small beside memory, large beside a kernel's launch. On the CPU
# smaller ones than the whole are also faster, since their memory is used again.
SLAB_BYTES = 1 << 24


def compute(
    x: mx.array, weight: mx.array, bias: mx.array | None, axes: list[Axis], groups: int
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
    blocks = all(_taps_stay_apart(axis) for axis in axes)
    # MLX convolves float64 in float32, and in 3-D without groups.
    native = x.dtype != mx.float64 and (groups == 1 or len(axes) < 3)
    if not blocks and native and all(axis.stride == 1 for axis in axes):
        y = _convolve(x, weight, axes, groups)
    elif groups == x.shape[-1] > 1:
        dtype = _summing_dtype(x, blocks)
        y = compute_depthwise(x.astype(dtype), weight.astype(dtype), axes)
    else:
        dtype = _summing_dtype(x, blocks)
        inputs = mx.unflatten(x, -1, (groups, x.shape[-1] // groups)).astype(dtype)
        taps = mx.unflatten(weight, 0, (groups, weight.shape[0] // groups)).astype(dtype)
        place = _place_blocks if blocks else _interleave_slabs
        y = _join_groups(place(inputs, taps, axes))
    if bias is not None:
        y = y + bias.astype(y.dtype)
    return y.astype(x.dtype)


def _summing_dtype(x: mx.array, blocks: bool) -> mx.Dtype:
    """The dtype of the products: float32 for half precision whose products are summed here.

    Within a matrix product a GPU sums in float32 by itself; the CPU does, too, but several times
    slower than it multiplies float32.
    """
    on_gpu = mx.default_device().type == mx.gpu
    return x.dtype if x.dtype == mx.float64 or (blocks and on_gpu) else mx.float32


def _taps_stay_apart(axis: Axis) -> bool:
    """Whether one tap at most reaches each output position, and all in the order of the output."""
    return axis.kernel == 1 or (axis.dilation == 1 and axis.kernel <= axis.stride)


def _convolve(x: mx.array, weight: mx.array, axes: list[Axis], groups: int) -> mx.array:
    """Stride 1 on every axis: the convolution with the flipped kernel."""
    # Negative padding makes MLX crop the input; that is right while nothing dilates the input.
    low = [axis.dilation * (axis.kernel - 1) - axis.offset for axis in axes]
    high = [axis.output - axis.size + axis.offset for axis in axes]
    dilations = [axis.dilation for axis in axes]
    return mx.conv_general(x, weight, 1, (low, high), dilations, groups=groups, flip=True)


def _multiply(x: mx.array, weight: mx.array) -> mx.array:
    """Every tap of every input: ``(N, *S, G, I)``, ``(G, C, *k, I)`` to ``(G, N, *S, *k, C)``."""
    groups, channels, *kernels, _ = weight.shape
    columns = mx.moveaxis(weight, 1, -2).flatten(1, -2).swapaxes(1, 2)
    if groups == 1:
        y = (x.squeeze(-2) @ columns[0])[None]
    else:
        # A split, not a transpose: under a shapeless compile MLX refuses it, while the unflatten
        # below would keep the traced shape without a word.
        rows = mx.stack([part.squeeze(-2) for part in mx.split(x, groups, -2)])
        y = mx.unflatten(rows.flatten(1, -2) @ columns, 1, x.shape[:-2])
    return mx.unflatten(y, -1, (*kernels, channels))


def _place_blocks(x: mx.array, weight: mx.array, axes: list[Axis]) -> mx.array:
    """The taps of each input side by side, widened to the stride; ``(G, N, *O, C)``."""
    rank = len(axes)
    order = [position for axis in range(rank) for position in (2 + axis, 2 + rank + axis)]
    y = _multiply(x, weight).transpose(0, 1, *order, 2 + 2 * rank)
    for index, axis in enumerate(axes):
        y = window(y, 3 + 2 * index, 0, axis.stride)
    for index, axis in enumerate(axes):
        y = window(y.flatten(2 + index, 3 + index), 2 + index, axis.offset, axis.output)
    return y


def _interleave_slabs(x: mx.array, weight: mx.array, axes: list[Axis]) -> mx.array:
    """The phases interleaved, slab by slab along the leading axis; ``(G, N, *O, C)``."""
    leading, *others = axes
    slabs = _slabs(x, leading, _row_bytes(x, weight, leading))
    return mx.concatenate(
        [_interleave_leading(rows, weight, [slab, *others]) for rows, slab in slabs], 2
    )


def _slabs(x: mx.array, axis: Axis, row_bytes: int) -> list[tuple[mx.array, Axis]]:
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
        halves += _slabs(window(x, 1, first, size), half, row_bytes)
    return halves


def _row_bytes(x: mx.array, weight: mx.array, axis: Axis) -> int:
    """The size of the matrix products over one row of the leading axis, all phases together."""
    batch, _, *sizes, _, _ = x.shape
    taps = weight.size // (axis.kernel * weight.shape[-1]) * min(axis.stride, axis.kernel)
    return int(batch * math.prod(sizes) * taps * x.itemsize)


def _interleave_leading(x: mx.array, weight: mx.array, axes: list[Axis]) -> mx.array:
    """Each phase of the leading axis by a matrix product of its own; ``(G, N, *O, C)``."""
    leading, *others = axes
    length, meetings = phases_of(leading)
    # Splitting once, not slicing per tap, makes the gradient one concatenation.
    taps = [tap.squeeze(2) for tap in mx.split(weight, leading.kernel, 2)]
    phases = []
    for meeting in meetings:
        if meeting:
            rows = mx.concatenate([window(x, 1, shift, length) for _, shift in meeting], -1)
            y = _multiply(rows, mx.concatenate([taps[tap] for tap, _ in meeting], -1))
            for index, axis in enumerate(others, start=3):
                y = _sum_trailing(y, axis, index, 3 + len(others))
        else:
            outputs = (length, *(axis.output for axis in others))
            y = mx.zeros((weight.shape[0], x.shape[0], *outputs, weight.shape[1]), x.dtype)
        phases.append(y)
    return interleave(phases, 2, leading.output)


def _sum_trailing(taps: mx.array, axis: Axis, index: int, tap_index: int) -> mx.array:
    """Sum the taps that meet along one axis.

    Turns axis ``index`` from ``size`` to ``output`` and removes the tap axis ``tap_index``.
    """
    length, meetings = phases_of(axis)
    parts = [part.squeeze(tap_index) for part in mx.split(taps, axis.kernel, tap_index)]
    phases = []
    for meeting in meetings:
        terms = [window(parts[tap], index, shift, length) for tap, shift in meeting]
        # A window that starts behind the last row is all zeros.
        terms = terms or [window(parts[0], index, axis.size, length)]
        phases.append(sum(terms[1:], start=terms[0]))
    return interleave(phases, index, axis.output)


def _join_groups(y: mx.array) -> mx.array:
    """``(G, N, *O, C)`` to ``(N, *O, G * C)``."""
    if y.shape[0] == 1:
        return y.squeeze(0)
    return mx.moveaxis(y, 0, -2).flatten(-2)
