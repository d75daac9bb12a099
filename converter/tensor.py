"""A tensor as its bits: how weights travel from a checkpoint to MLX without losing any.

Permutations and reshapes never look at values, so they work on raw storage: bfloat16 travels as
uint16 and float8 as uint8, bit for bit, NaN payloads included, with the dtype's name beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlxport.converter.errors import CheckpointError

if TYPE_CHECKING:
    import mlx.core as mx

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


@dataclass(frozen=True)
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

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape."""
        return tuple(self.bits.shape)

    def with_bits(self, bits: npt.NDArray[Any]) -> Tensor:
        """Return the same dtype over other storage."""
        return Tensor(bits, self.dtype)


def to_float64(tensor: Tensor) -> npt.NDArray[np.float64]:
    """Return the values of a real floating-point tensor, exactly.

    Raises:
        CheckpointError: the dtype is another.
    """
    if tensor.dtype not in ("F16", "BF16", "F32", "F64"):
        raise CheckpointError(
            f"expected F16, BF16, F32 or F64 values to compute with, got {tensor.dtype}"
        )
    bits = tensor.bits
    if tensor.dtype == "BF16":
        bits = (bits.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return bits.astype(np.float64)


def from_float64(values: npt.NDArray[np.float64], dtype: str) -> Tensor:
    """Round values to a dtype, to nearest and ties to even; to BF16 by way of F32, as PyTorch does.

    Raises:
        CheckpointError: ``dtype`` is none of F16, BF16, F32 and F64.
    """
    with np.errstate(over="ignore", under="ignore"):  # beyond the dtype is infinite, or zero
        if dtype == "BF16":
            return Tensor(_bfloat16_bits(values.astype(np.float32)), dtype)
        if dtype in ("F16", "F32", "F64"):
            return Tensor(values.astype(STORAGE[dtype]), dtype)
    raise CheckpointError(f"expected F16, BF16, F32 or F64 to round to, got {dtype}")


def _bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
    kept: npt.NDArray[np.uint32] = np.where(np.isnan(values), np.uint32(0x7FC0), rounded)
    return kept.astype(np.uint16)


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
