"""Values of torch tensors, kept while the model runs on and overwrites them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from mlxport.converter.parity.reference.float64 import as_float64
from mlxport.converter.parity.verdict.reference_data import NumpyArray, ReferenceValue
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.torch_tensor import tensor_from_torch


class Kept:
    """The values of a tensor that are kept: copied, widened, flat and on the CPU."""

    def __init__(self, tensor: torch.Tensor, indices: NumpyArray | None = None) -> None:
        self.shape, self.dtype = tuple(tensor.shape), torch_dtype_name(tensor.dtype)
        self.indices = indices
        flat = tensor.detach().reshape(-1)
        if indices is not None:
            flat = flat[torch.from_numpy(indices).to(flat.device)]
        self.values: NumpyArray = as_float64(flat).cpu().resolve_conj().resolve_neg().numpy()


def joined(own: Sequence[Kept], exact: Sequence[Kept]) -> tuple[ReferenceValue, ...]:
    """Pair the values of the two runs; where the float64 run has no such tensor, own is both."""
    if [kept.shape for kept in own] != [kept.shape for kept in exact]:
        exact = own
    return tuple(
        ReferenceValue(o.shape, o.dtype, e.values, o.values, o.indices, _reference_dtype(e.dtype))
        for o, e in zip(own, exact, strict=True)
    )


def tensors(value: Any) -> list[torch.Tensor]:
    """Return all tensors in nested containers, in pytree order."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def bits(tensor: torch.Tensor) -> Tensor:
    """Return a copy of a tensor as raw storage."""
    return tensor_from_torch(tensor.detach().clone())


def torch_dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype (``"bfloat16"``)."""
    return str(dtype).removeprefix("torch.")


def _reference_dtype(dtype: str) -> str:
    # integers are exact in any run, and a complex128 is a pair of float64
    return dtype if dtype in ("float16", "bfloat16", "float32", "complex64") else "float64"
