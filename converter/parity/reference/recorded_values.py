"""What is recorded while a torch model runs: values of tensors and calls of modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from mlxport.converter.parity.reference.float64 import as_float64
from mlxport.converter.parity.verdict.reference_data import NumpyArray, ReferenceValue
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.torch_model.calls import CallArguments


class RecordedTensor:
    """The values of one tensor, or a sample of them, as a flat copy on the CPU.

    A copy, because the model runs on and may overwrite the tensor.

    Attributes:
        shape: of the tensor.
        dtype: its name.
        indices: flat indices of the sample; None where all values are recorded.
        values: widened to float64 where they are floating.
    """

    def __init__(self, tensor: torch.Tensor, indices: NumpyArray | None = None) -> None:
        self.shape, self.dtype = tuple(tensor.shape), torch_dtype_name(tensor.dtype)
        self.indices = indices
        flat = tensor.detach().reshape(-1)
        if indices is not None:
            flat = flat[torch.from_numpy(indices).to(flat.device)]
        self.values: NumpyArray = as_float64(flat).cpu().resolve_conj().resolve_neg().numpy()


@dataclass(frozen=True, eq=False)
class RecordedCall:
    """One call of a submodule in one run.

    Attributes:
        path: of the submodule.
        number: how many calls of it came before.
        given: copies of its arguments, if recorded; a tensor given to several calls is copied once.
        draws: which random draws happened inside it, from the first to before the second.
        outputs: its result, flattened.
        span: how many calls of any submodule had begun when it began, and when it returned.
        labels: of the tensors among its arguments, what `UnchangedTensors` recognises them as.
    """

    path: str
    number: int
    given: CallArguments | None
    draws: tuple[int, int]
    outputs: list[RecordedTensor]
    span: tuple[int, int]
    labels: tuple[torch.Tensor | None, ...] = ()

    def within(self, other: RecordedCall) -> bool:
        """Tell whether another call was going on when this one began."""
        return other.span[0] < self.span[0] < other.span[1]


def reference_values(
    native: Sequence[RecordedTensor], float64: Sequence[RecordedTensor]
) -> tuple[ReferenceValue, ...]:
    """Join the values of the run in the model's dtype with those of the run in float64.

    Where the float64 run has no such tensors, the native values are the reference too.
    """
    if [tensor.shape for tensor in native] != [tensor.shape for tensor in float64]:
        float64 = native
    return tuple(
        ReferenceValue(n.shape, n.dtype, f.values, n.values, n.indices, _reference_dtype(f.dtype))
        for n, f in zip(native, float64, strict=True)
    )


def tensors(value: Any) -> list[torch.Tensor]:
    """Return all tensors in nested containers, in pytree order."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def raw_copy(tensor: torch.Tensor) -> Tensor:
    """Return a copy of a tensor as raw storage."""
    return tensor_from_torch(tensor.detach().clone())


def torch_dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype (``"bfloat16"``)."""
    return str(dtype).removeprefix("torch.")


def _reference_dtype(dtype: str) -> str:
    # integers are exact in any run, and a complex128 is a pair of float64
    return dtype if dtype in ("float16", "bfloat16", "float32", "complex64") else "float64"
