"""Convert values between PyTorch's axis order and the layout in which MLX stores them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxport.converter.errors import EvidenceError
from mlxport.converter.plan.record import Layout, Merged
from mlxport.converter.plan.tensor import Tensor, to_mlx


def to_mlx_order(tensor: Tensor, layout: Layout) -> mx.array:
    """Return a PyTorch value as MLX stores it: axes permuted, in the layout's dtype.

    Raises:
        EvidenceError: the layout's dtype is none of MLX's.
    """
    moved = tensor.with_bits(_merged(_moved(tensor.bits, layout), layout.merged))
    dtype = getattr(mx, "bool_" if layout.dtype == "bool" else layout.dtype, None)
    if not isinstance(dtype, mx.Dtype):
        raise EvidenceError(
            f"conversion.json is damaged: it has an input of dtype {layout.dtype!r}, which MLX "
            "has not"
        )
    if moved.dtype == "F64":  # only MLX's CPU backend has it
        return mx.array(np.ascontiguousarray(moved.bits), dtype=dtype)
    return to_mlx(moved).astype(dtype)


def _merged(values: npt.NDArray[Any], merged: Merged | None) -> npt.NDArray[Any]:
    """Return values with the elements of a flattened last axis in MLX's sequence."""
    if merged is None:
        return values
    leading = values.ndim - 1
    parted = values.reshape(*values.shape[:leading], *merged.sizes)
    axes = (*range(leading), *(leading + axis for axis in merged.order))
    moved: npt.NDArray[Any] = parted.transpose(axes).reshape(values.shape)
    return moved


def to_numpy(array: mx.array) -> npt.NDArray[Any]:
    """Return an array's values in the axis order they are stored in; bfloat16 as float32."""
    return np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)


def to_torch_order(array: mx.array, layout: Layout) -> npt.NDArray[Any]:
    """Return an MLX value in PyTorch's axis order; as stored where it has another rank."""
    values = to_numpy(array)
    if values.ndim != len(layout.order):
        return values
    added = tuple(i for i, axis in enumerate(layout.order) if axis < 0)
    kept = [axis for axis in layout.order if axis >= 0]
    missing = [axis for axis in range(len(layout.shape)) if axis not in kept]
    if added or missing:
        values = np.squeeze(values, added)
        return np.expand_dims(np.transpose(values, np.argsort(kept)), missing)
    return np.transpose(values, np.argsort(layout.order))


def _moved(bits: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    added = [i for i, axis in enumerate(layout.order) if axis < 0]
    kept = [axis for axis in layout.order if axis >= 0]
    missing = [axis for axis in range(bits.ndim) if axis not in kept]
    ranked = sorted(kept)  # the axes that are left, by their new numbers
    values = np.transpose(np.squeeze(bits, tuple(missing)), [ranked.index(a) for a in kept])
    return np.expand_dims(values, added)
