"""Values on their way between PyTorch's axis order and the one MLX stores them in."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxport.converter.record import Layout
from mlxport.converter.tensor import Tensor, to_mlx


def stored(tensor: Tensor, layout: Layout) -> mx.array:
    """Return a PyTorch value as MLX stores it: axes permuted, in the recorded dtype."""
    moved = tensor.with_bits(np.transpose(tensor.bits, layout.order))
    dtype = getattr(mx, "bool_" if layout.dtype == "bool" else layout.dtype)
    if moved.dtype == "F64":  # only MLX's CPU backend has it
        return mx.array(np.ascontiguousarray(moved.bits), dtype=dtype)
    return to_mlx(moved).astype(dtype)


def logical(array: mx.array, layout: Layout) -> npt.NDArray[Any]:
    """Return an MLX value in PyTorch's axis order; as it lies where it has another rank."""
    values: npt.NDArray[Any] = np.array(
        array.astype(mx.float32) if array.dtype == mx.bfloat16 else array
    )
    if values.ndim != len(layout.order):
        return values
    return np.transpose(values, np.argsort(layout.order))
