"""Argument checks of spatial layers, and the output sizes of transposed convolutions.

A check refuses what PyTorch refuses. It raises ``ValueError`` with the layer's name in front, as
``mlx.nn`` does, and reports all faults of its kind at once.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import mlx.core as mx

# An argument of a spatial layer: one integer for all spatial axes, or one for each.
IntsPerAxis = int | Sequence[int]

FLOATING_DTYPES = (mx.float16, mx.bfloat16, mx.float32, mx.float64)


class TransposedAxis(NamedTuple):
    """One spatial axis of a transposed convolution.

    Tap ``t`` of input row ``i`` contributes to position ``i * stride + t * dilation`` of the full
    output. The result is the range of length ``output`` that starts at ``offset`` there. Positions
    that no tap reaches are zero. A part of the result (a slab) is described by another offset and
    fewer input rows.

    Attributes:
        size: The number of input rows.
        kernel: The number of taps.
        stride: The distance of input rows in the full output.
        dilation: The distance of taps.
        offset: Where the result starts in the full output: the padding.
        output: The length of the result.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    offset: int
    output: int


def ints_per_axis(
    value: IntsPerAxis, rank: int, name: str, layer: str, *, broadcast: bool = True
) -> tuple[int, ...]:
    """Return an argument as one integer per spatial axis.

    Args:
        value: An integer for all axes, or a sequence of ``rank`` integers. A sequence of one
            integer also stands for all axes where ``broadcast`` is true, as in ``torch``.
        rank: The number of spatial axes.
        name: The argument's name, for the error.
        layer: The layer's or function's name, for the error.
        broadcast: Whether a sequence of one integer stands for all axes.

    Raises:
        ValueError: If the value is not an integer or a sequence of the right length.
    """
    items = (value,) * rank if not isinstance(value, Sequence) else tuple(value)
    if len(items) == 1 and broadcast:
        items *= rank
    # operator.index would take True for 1.
    if len(items) != rank or any(isinstance(item, bool) for item in items):
        raise ValueError(_expand_message(value, rank, name, layer))
    try:
        return tuple(operator.index(item) for item in items)
    except TypeError:
        raise ValueError(_expand_message(value, rank, name, layer)) from None


def _expand_message(value: object, rank: int, name: str, layer: str) -> str:
    return f"[{layer}] '{name}' must be an integer or a tuple of {rank} but got {value!r}."


def check_hyperparameters(
    layer: str,
    positive: Mapping[str, int | tuple[int, ...]],
    non_negative: Mapping[str, int | tuple[int, ...]],
) -> None:
    """Refuse arguments out of range, all of them in one error.

    Raises:
        ValueError: If a value of ``positive`` is below 1 or one of ``non_negative`` below 0.
    """
    faults = []
    for kind, lowest, values in (
        ("positive", 1, positive),
        ("zero or positive", 0, non_negative),
    ):
        for name, value in values.items():
            items = value if isinstance(value, tuple) else (value,)
            if min(items) < lowest:
                faults.append(f"'{name}' must be {kind} but got {value}")
    if faults:
        raise ValueError(f"[{layer}] {'; '.join(faults)}.")


def check_divisible(layer: str, groups: int, channels: Mapping[str, int]) -> None:
    """Refuse channel counts that ``groups`` does not divide.

    Raises:
        ValueError: Naming every count that does not divide.
    """
    faults = [
        f"'{name}' must be divisible by groups={groups} but got {count}"
        for name, count in channels.items()
        if count % groups
    ]
    if faults:
        raise ValueError(f"[{layer}] {'; '.join(faults)}.")


def check_operands(
    layer: str, x: mx.array, weight: mx.array, bias: mx.array | None, groups: int
) -> None:
    """Refuse arrays a convolution over ``weight`` cannot take.

    Args:
        layer: The layer's or function's name, for the error.
        x: The input, ``(N, *S, in)`` or ``(*S, in)``.
        weight: ``(out, *k, in/groups)``, of 3 to 5 dimensions.
        bias: ``(out,)`` or ``None``.
        groups: The number of groups, positive.

    Raises:
        ValueError: If the number of dimensions, the dtypes, the channels or the bias's shape do
            not go together, an axis of the weight is empty, or a spatial axis of a non-empty
            batch is empty.
    """
    rank = weight.ndim - 2
    if x.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"[{layer}] input must have {rank + 2} dimensions (N, *spatial, channels), or "
            f"{rank + 1} without the batch, but got shape {x.shape}."
        )
    faults = _dtype_faults(x, weight, bias) + _shape_faults(x, weight, bias, groups)
    if faults:
        raise ValueError(f"[{layer}] {'; '.join(faults)}.")


def _dtype_faults(x: mx.array, weight: mx.array, bias: mx.array | None) -> list[str]:
    faults = []
    if x.dtype not in FLOATING_DTYPES:
        faults.append(f"input must be of a floating dtype but got {x.dtype}")
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None and array.dtype != x.dtype:
            faults.append(f"{name} must have the input's dtype {x.dtype} but got {array.dtype}")
    return faults


def _shape_faults(x: mx.array, weight: mx.array, bias: mx.array | None, groups: int) -> list[str]:
    faults = []
    rank, out_channels = weight.ndim - 2, weight.shape[0]
    if weight.size == 0:
        faults.append(f"weight must not be empty but got shape {weight.shape}")
    if x.shape[-1] != weight.shape[-1] * groups:
        faults.append(
            f"input must have {weight.shape[-1] * groups} channels (weight {weight.shape}, "
            f"groups={groups}) but got {x.shape[-1]} (input {x.shape})"
        )
    batch_is_empty = x.ndim == rank + 2 and x.shape[0] == 0
    if 0 in x.shape[-1 - rank : -1] and not batch_is_empty:
        faults.append(f"input must have no empty spatial axis but got shape {x.shape}")
    if bias is not None and bias.shape != (out_channels,):
        faults.append(f"bias must have shape {(out_channels,)} but got {bias.shape}")
    return faults


def transposed_axes(
    layer: str,
    sizes: Sequence[int],
    kernels: Sequence[int],
    strides: Sequence[int],
    paddings: Sequence[int],
    output_paddings: Sequence[int],
    dilations: Sequence[int],
) -> list[TransposedAxis]:
    """Return the axes of a transposed convolution, with their output sizes.

    Args:
        layer: The layer's or function's name, for the error.
        sizes: The input's spatial size; this and the rest have one entry per spatial axis.
        kernels: The kernel's size.
        strides: The strides.
        paddings: How much is cropped from both ends.
        output_paddings: Added to the end of the output.
        dilations: The spacing of taps.

    Raises:
        ValueError: If an output padding is not smaller than stride or dilation, or an output size
            is below 1.
    """
    limits = tuple(map(max, strides, dilations))
    if any(extra >= limit for extra, limit in zip(output_paddings, limits, strict=True)):
        raise ValueError(
            f"[{layer}] 'output_padding' must be smaller than max(stride, dilation)={limits} "
            f"but got {tuple(output_paddings)}."
        )
    minimal = minimal_transposed_sizes(sizes, kernels, strides, paddings, dilations)
    outputs = tuple(size + extra for size, extra in zip(minimal, output_paddings, strict=True))
    if min(outputs) < 1:
        raise ValueError(
            f"[{layer}] output size must be positive but got {outputs} "
            f"for an input of {tuple(sizes)} and padding {tuple(paddings)}."
        )
    return [
        TransposedAxis(*axis)
        for axis in zip(sizes, kernels, strides, dilations, paddings, outputs, strict=True)
    ]


def minimal_transposed_sizes(
    sizes: Sequence[int],
    kernels: Sequence[int],
    strides: Sequence[int],
    paddings: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """Return the output sizes of a transposed convolution without output padding."""
    return tuple(
        (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
        for size, kernel, stride, padding, dilation in zip(
            sizes, kernels, strides, paddings, dilations, strict=True
        )
    )
