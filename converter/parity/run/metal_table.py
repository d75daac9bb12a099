"""What MLX's Metal backend refuses, rounds more or unfolds, by primitive and dtype.

Read in the sources of the first of `VERSIONS` (``mlx/backend/metal``): which kernels are
instantiated, what ``eval_gpu`` throws, which way ``conv.cpp`` takes; kernels and errors again in
the macOS build of the last (``mlx.metallib``, ``libmlx.dylib``). Another version may differ, and
only a run on Metal shows that a call is right there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

VERSIONS = ("0.32.2", "0.32.4")

# Winograd F(6x6, 3x3) serves convolutions from this size on, in these multiples of channels.
WINOGRAD_PIXELS = 4096
WINOGRAD_CHANNELS = 256
WINOGRAD_MULTIPLE = 32
# MLX makes 2-D convolutions of a 3-D one whose kernel is no deeper.
DEEPEST_KERNEL = 7

_LARGEST_FFT = 1 << 24
_MOST_INDICES = 20
_WIDE = ("int64", "uint64", "complex64")
_LINEAR_ALGEBRA = ("Cholesky", "Eig", "Eigh", "Inverse", "LUF", "QRF", "SVD")
_COMPLEX_LACKING = (
    *("ArcCosh", "ArcSinh", "ArcTanh", "ArcTan2", "Ceil", "Erf", "ErfInv", "Expm1", "Floor"),
    *("LogSumExp", "Sigmoid", "Softmax"),
)
_BOOL_LACKING = ("BitwiseInvert", "LeftShift", "RightShift")
_SORTS = ("Sort", "ArgSort", "Partition", "ArgPartition")
_SUMS = {"Scatter": 2, "ScatterAxis": 0}  # the numbers of their reductions


class Effect(Enum):
    """What becomes of a call on Metal."""

    REFUSED = "refused"
    ROUNDED = "rounds more"
    UNFOLDED = "unfolds"


@dataclass(frozen=True)
class ArrayType:
    """Dtype and shape of an operand or result."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PrimitiveCall:
    """One primitive of an MLX graph, as ``mx.export_function`` describes it.

    Attributes:
        name: of the primitive: ``Scatter``.
        inputs: its operands.
        outputs: its results.
        arguments: its settings, in MLX's order.
    """

    name: str
    inputs: tuple[ArrayType, ...]
    outputs: tuple[ArrayType, ...]
    arguments: tuple[Any, ...] = ()

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of operands and results, each once."""
        return tuple(dict.fromkeys(array.dtype for array in (*self.inputs, *self.outputs)))

    @property
    def kind(self) -> tuple[str, ...]:
        """What calls of one kind share: the primitive and the dtypes of operands and results."""
        types = (array.dtype for array in (*self.inputs, *self.outputs))
        return (self.name, str(len(self.inputs)), *types)

    def __str__(self) -> str:
        return f"{self.name} of {', '.join(self.dtypes)}"


@dataclass(frozen=True)
class Row:
    """One fact of the table.

    Attributes:
        primitives: whom it is about; empty for all.
        applies: tells of a call of theirs whether it is met.
        effect: what becomes of such a call.
        reason: why, in a sentence for people.
    """

    primitives: tuple[str, ...]
    applies: Callable[[PrimitiveCall], bool]
    effect: Effect
    reason: str


def _of(*dtypes: str) -> Callable[[PrimitiveCall], bool]:
    return lambda call: any(dtype in dtypes for dtype in call.dtypes)


def _scatters_wide(call: PrimitiveCall) -> bool:
    dtype = call.outputs[0].dtype
    sums = bool(call.arguments) and call.arguments[0] == _SUMS[call.name]
    return dtype in _WIDE and not (dtype == "complex64" and sums)


def _too_long(call: PrimitiveCall) -> bool:
    axes = call.arguments[0] if call.arguments else ()
    arrays = (*call.inputs, *call.outputs)
    sizes = [array.shape[axis] for array in arrays for axis in axes if axis < len(array.shape)]
    return max(sizes, default=0) > _LARGEST_FFT


@dataclass(frozen=True)
class _Convolution:
    """The settings of a convolution, channels last."""

    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    input_dilation: tuple[int, ...]
    groups: int
    flip: bool
    x: tuple[int, ...]
    weight: tuple[int, ...]

    @classmethod
    def of(cls, call: PrimitiveCall) -> _Convolution:
        strides, padding, _, dilation, input_dilation, groups, flip = call.arguments
        return cls(
            tuple(strides),
            tuple(padding),
            tuple(dilation),
            tuple(input_dilation),
            groups,
            flip,
            x=call.inputs[0].shape,
            weight=call.inputs[1].shape,
        )

    @property
    def rank(self) -> int:
        return len(self.strides)

    @property
    def channels(self) -> tuple[int, int]:
        """Channels that come in and go out, of one group."""
        return self.x[-1] // self.groups, self.weight[0] // self.groups


def _takes_winograd(call: PrimitiveCall) -> bool:
    conv = _Convolution.of(call)
    depth = conv.rank - 2
    if depth < 0 or conv.flip or conv.groups > 1 or any(conv.padding[:depth]):
        return False
    if depth and (conv.x[0] > 1 or conv.weight[1] > DEEPEST_KERNEL):
        return False
    pixels = conv.x[0] * math.prod(conv.x[1 + depth : -1])
    ones = {*conv.strides, *conv.dilation, *conv.input_dilation} == {1}
    fits = all(n % WINOGRAD_MULTIPLE == 0 for n in conv.channels)
    large = pixels >= WINOGRAD_PIXELS and sum(conv.channels) >= WINOGRAD_CHANNELS
    return ones and conv.weight[1 + depth : -1] == (3, 3) and fits and large


def _unfolds(call: PrimitiveCall) -> bool:
    """Whether every tap's operands are copied out, for a product of matrices."""
    conv = _Convolution.of(call)
    taken, given = conv.channels
    outputs_fit = given <= 16 or given % 16 == 0
    if conv.rank == 3:
        padded = conv.groups == 1  # MLX pads the channels then
        return set(conv.input_dilation) != {1} or not (padded or (taken % 16 == 0 and outputs_fit))
    fits = (taken <= 4 or taken % 16 == 0) and outputs_fit
    if conv.rank == 1:
        separable = conv.groups == conv.x[-1] == conv.weight[0] and not conv.flip
        plain = (*conv.strides, *conv.dilation, *conv.padding) == (1, 1, 0)
        return conv.input_dilation != (1,) or not (fits or (separable and plain))
    if conv.groups > 1:
        return set(conv.input_dilation) != {1} or not fits
    pixels = call.outputs[0].shape[0] * math.prod(call.outputs[0].shape[1:-1])
    return not fits and not (taken % 16 == given % 16 == 0) and pixels < 256


TABLE: tuple[Row, ...] = (
    Row((), _of("float64"), Effect.REFUSED, "Metal has no float64"),
    Row(
        tuple(_SUMS),
        _scatters_wide,
        Effect.REFUSED,
        "elements of 8 bytes are not scattered there, but for sums of complex64",
    ),
    Row(_COMPLEX_LACKING, _of("complex64"), Effect.REFUSED, "it has no kernel of complex64"),
    Row(("ArgReduce",), _of("complex64"), Effect.REFUSED, "it has no kernel of complex64"),
    Row(_BOOL_LACKING, _of("bool"), Effect.REFUSED, "it has no kernel of bool"),
    Row(
        _SORTS,
        lambda call: call.inputs[0].dtype == "bool",
        Effect.REFUSED,
        "it has no kernel of bool",
    ),
    Row(("Arange",), _of("bool", "complex64"), Effect.REFUSED, "it counts in real numbers only"),
    Row(_LINEAR_ALGEBRA, lambda call: True, Effect.REFUSED, "it is computed on the CPU only"),
    Row(("Load",), lambda call: True, Effect.REFUSED, "files are read on the CPU only"),
    Row(
        ("Gather", "Scatter"),
        lambda call: len(call.inputs) - 1 > _MOST_INDICES,
        Effect.REFUSED,
        f"it takes {_MOST_INDICES} arrays of indices at most",
    ),
    Row(("FFT",), _too_long, Effect.REFUSED, "it takes 2^24 elements at most"),
    Row(
        ("Convolution",),
        _takes_winograd,
        Effect.ROUNDED,
        "Winograd's algorithm rounds more; MLX_CONV_WINOGRAD=0 forbids it",
    ),
    Row(("Convolution",), _unfolds, Effect.UNFOLDED, "it copies every tap's operands out"),
)


def rows_of(call: PrimitiveCall) -> list[Row]:
    """Return the rows that a call on a stream of the GPU meets."""
    return [
        row
        for row in TABLE
        if (not row.primitives or call.name in row.primitives) and row.applies(call)
    ]
