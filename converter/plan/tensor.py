"""A tensor as its bits: how weights travel from a checkpoint to MLX without losing any.

Permutations and reshapes never look at values, so they work on raw storage: bfloat16 travels as
uint16 and float8 as uint8, bit for bit, NaN payloads included, with the dtype's name beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.json_data import Count

if TYPE_CHECKING:
    import mlx.core as mx

    DtypeName: TypeAlias = str

# safetensors dtype name -> numpy dtype of the storage
STORAGE: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("bool"),
    "U8": np.dtype("uint8"),
    "I8": np.dtype("int8"),
    "U16": np.dtype("uint16"),
    "I16": np.dtype("int16"),
    "U32": np.dtype("uint32"),
    "I32": np.dtype("int32"),
    "U64": np.dtype("uint64"),
    "I64": np.dtype("int64"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype("uint16"),
    "F32": np.dtype("float32"),
    "F64": np.dtype("float64"),
    "C64": np.dtype("complex64"),
    "F8_E4M3": np.dtype("uint8"),
    "F8_E5M2": np.dtype("uint8"),
    "F8_E4M3FNUZ": np.dtype("uint8"),
    "F8_E5M2FNUZ": np.dtype("uint8"),
    "F8_E8M0": np.dtype("uint8"),
}

if not TYPE_CHECKING:
    # The name of a dtype in the safetensors format, checked where it is read.
    DtypeName = Literal[tuple(STORAGE)]

# safetensors dtype name -> name of the dtype in mlx.core, where MLX has it
MLX_DTYPE: dict[str, str] = {
    "BOOL": "bool_",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "C64": "complex64",
}


# safetensors dtype name -> the real floating-point type that reads its storage as numbers
_FLOATS: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("float32"),
    "F64": np.dtype("float64"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """Raw storage and the dtype it stands for.

    Attributes:
        bits: an array of ``STORAGE[dtype]``, of any strides.
        dtype: the dtype's name in the safetensors format (``"F32"``, ``"BF16"`` …).
    """

    bits: npt.NDArray[Any]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in STORAGE:
            raise CheckpointError(
                f"dtype {self.dtype!r} is not one mlxport knows: {', '.join(STORAGE)}"
            )
        if self.bits.dtype != STORAGE[self.dtype]:
            raise CheckpointError(
                f"a {self.dtype} tensor is stored as {STORAGE[self.dtype]}, got {self.bits.dtype}"
            )

    def __repr__(self) -> str:
        return f"Tensor({self})"

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape."""
        return tuple(self.bits.shape)

    def with_bits(self, bits: npt.NDArray[Any]) -> Tensor:
        """Return the same dtype over other storage."""
        return Tensor(bits, self.dtype)


Tensors = tuple[Tensor, ...]


class TensorSpec(NamedTuple):
    """What is known of a tensor before its values.

    Attributes:
        dtype: the dtype's name in the safetensors format.
        shape: the logical shape.
    """

    dtype: DtypeName
    shape: tuple[Count, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        """Return the spec of a tensor."""
        return cls(tensor.dtype, tensor.shape)

    @property
    def nbytes(self) -> int:
        """The length of the values in bytes."""
        return math.prod(self.shape) * STORAGE[self.dtype].itemsize

    def outline(self) -> Tensor:
        """Return a tensor of this shape and dtype that takes no memory: one zero, repeated.

        What only moves axes moves those of an outline too, so it tells shapes without the values.
        """
        zero = np.zeros((), STORAGE[self.dtype])
        try:
            return Tensor(np.broadcast_to(zero, self.shape), self.dtype)
        except ValueError as error:  # numpy's limits
            raise CheckpointError(f"no tensor is {self}: {error}") from error

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors are the same to the bit: dtype, shape, NaN payloads."""

    def raw(tensor: Tensor) -> bytes:
        return np.ascontiguousarray(tensor.bits).tobytes()

    return (one.dtype, one.shape) == (other.dtype, other.shape) and raw(one) == raw(other)


def is_float(dtype: str) -> bool:
    """Tell whether a dtype is a real floating-point one."""
    return dtype in _FLOATS


@cache  # every block of a tensor that is examined asks
def infinity_pattern(dtype: str) -> int:
    """Return the bits of infinity in a floating-point dtype, or of NaN in one without infinity."""
    with np.errstate(invalid="ignore"):
        infinity = np.array(np.inf, np.float32).astype(_FLOATS[dtype])
    return int(infinity.view(f"u{infinity.itemsize}"))


def to_float64(tensor: Tensor) -> npt.NDArray[np.float64]:
    """Return the values of a real floating-point tensor, exactly.

    Raises:
        CheckpointError: the dtype is another.
    """
    if not is_float(tensor.dtype):
        raise CheckpointError(
            f"expected floating-point values to compute with, got {tensor.dtype} ones"
        )
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return _values(tensor).astype(np.float64)


def from_float64(values: npt.NDArray[np.float64], dtype: str) -> Tensor:
    """Round values to a dtype, to nearest and ties to even; to BF16 by way of F32, as PyTorch does.

    Raises:
        CheckpointError: ``dtype`` is none of F16, BF16, F32 and F64.
    """
    if dtype not in ("F16", "BF16", "F32", "F64"):
        raise CheckpointError(f"expected F16, BF16, F32 or F64 to round to, got {dtype}")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # infinite, zero, NaN
        return _rounded(values.astype(np.float32) if dtype == "BF16" else values, dtype)


def holds(wide: str, narrow: str) -> bool:
    """Tell whether every value of the dtype ``narrow`` is a value of ``wide``."""
    if wide == narrow:
        return True
    if is_float(wide) and is_float(narrow):
        # No 8-bit format holds another: their NaNs and zeros differ.
        large, small = ml_dtypes.finfo(_FLOATS[wide]), ml_dtypes.finfo(_FLOATS[narrow])
        return large.bits > 8 and large.nmant >= small.nmant and large.nexp >= small.nexp
    if is_float(wide) or is_float(narrow):
        return False
    return bool(np.can_cast(STORAGE[narrow], STORAGE[wide], "safe"))


def cast(tensor: Tensor, dtype: str) -> Tensor:
    """Return a tensor's values in another dtype of its kind, rounded as ``torch.Tensor.to`` does.

    To nearest, ties to even; from F64 to 16 bits by way of F32. NaN stays NaN. To 8 bits only what
    they hold, as when a cast from them is undone: nothing is rounded.

    Raises:
        CheckpointError: one dtype is floating-point and the other is not, or ``dtype`` has 8 bits
            and values are none of its.
    """
    if tensor.dtype == dtype:
        return tensor
    bits = tensor.bits
    if bits.size > 1 and not any(bits.strides):  # an outline stays one
        one = cast(tensor.with_bits(bits[(0,) * bits.ndim]), dtype)
        return one.with_bits(np.broadcast_to(one.bits, bits.shape))
    if is_float(tensor.dtype) != is_float(dtype):
        raise CheckpointError(f"{tensor.dtype} values cannot be cast to {dtype}")
    if not is_float(dtype):
        return Tensor(bits.astype(STORAGE[dtype]), dtype)
    if dtype == "F64":
        return Tensor(to_float64(tensor), dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if STORAGE[dtype].itemsize == 1:
            return _exact(tensor, dtype)
        return _rounded(_values(tensor).astype(np.float32, copy=False), dtype)


def _values(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a floating-point tensor's storage as numbers; nothing is copied."""
    return np.asarray(tensor.bits).view(_FLOATS[tensor.dtype])


def _rounded(values: npt.NDArray[Any], dtype: str) -> Tensor:
    return Tensor(values.astype(_FLOATS[dtype], copy=False).view(STORAGE[dtype]), dtype)


def _exact(tensor: Tensor, dtype: str) -> Tensor:
    """Return a tensor's values in an 8-bit dtype that has all of them."""
    values = to_float64(tensor)
    if dtype == "F8_E8M0":  # which has no zero; PyTorch makes it the least there is
        values = np.where(values == 0, 2.0**-127, values)
    found = _rounded(values, dtype)
    back = to_float64(found)
    changed = (back != values) | (np.signbit(back) != np.signbit(values))
    if lost := np.count_nonzero(changed & ~np.isnan(values)):
        raise CheckpointError(
            f"{lost} of {values.size} {tensor.dtype} values are none of {dtype}'s: "
            "they were changed since they were cast from it"
        )
    return found


def to_mlx(tensor: Tensor) -> mx.array:
    """Return the tensor as an ``mx.array`` with the same bits.

    Raises:
        CheckpointError: MLX has no such dtype (float64 on the GPU, float8).
    """
    import mlx.core as mx

    name = MLX_DTYPE.get(tensor.dtype)
    if name is None:
        raise CheckpointError(
            f"MLX has no counterpart of dtype {tensor.dtype}. Cast the model first (model.float())."
        )
    if tensor.bits.size == 0:
        # reductions over an empty array that came from numpy may never return (MLX 0.32.4, CPU)
        return mx.zeros(tensor.shape, dtype=getattr(mx, name))
    array = mx.array(np.ascontiguousarray(tensor.bits).reshape(tensor.shape))
    return array.view(mx.bfloat16) if tensor.dtype == "BF16" else array


def from_mlx(array: mx.array) -> Tensor:
    """Return an ``mx.array`` as a tensor with the same bits.

    Raises:
        CheckpointError: the safetensors format has no such dtype.
    """
    import mlx.core as mx

    name = str(array.dtype).rpartition(".")[2]
    dtype = next((ours for ours, theirs in MLX_DTYPE.items() if theirs in (name, f"{name}_")), None)
    if dtype is None:
        raise CheckpointError(f"{name} is no dtype of a tensor in a checkpoint")
    return Tensor(np.array(array.view(mx.uint16) if dtype == "BF16" else array), dtype)
