"""From a ``torch.Tensor`` to its bits and back, without a detour through another dtype."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from mlxport.converter.errors import StateDictError
from mlxport.converter.plan.tensor import Tensor

# torch dtype -> (safetensors dtype name, the torch dtype numpy can hold the bits as)
_STORED: dict[torch.dtype, tuple[str, torch.dtype]] = {
    torch.bool: ("BOOL", torch.bool),
    torch.uint8: ("U8", torch.uint8),
    torch.int8: ("I8", torch.int8),
    torch.uint16: ("U16", torch.uint16),
    torch.int16: ("I16", torch.int16),
    torch.uint32: ("U32", torch.uint32),
    torch.int32: ("I32", torch.int32),
    torch.uint64: ("U64", torch.uint64),
    torch.int64: ("I64", torch.int64),
    torch.float16: ("F16", torch.float16),
    torch.bfloat16: ("BF16", torch.uint16),
    torch.float32: ("F32", torch.float32),
    torch.float64: ("F64", torch.float64),
    torch.complex64: ("C64", torch.complex64),
    torch.float8_e4m3fn: ("F8_E4M3", torch.uint8),
    torch.float8_e5m2: ("F8_E5M2", torch.uint8),
    torch.float8_e4m3fnuz: ("F8_E4M3FNUZ", torch.uint8),
    torch.float8_e5m2fnuz: ("F8_E5M2FNUZ", torch.uint8),
    torch.float8_e8m0fnu: ("F8_E8M0", torch.uint8),
}

# safetensors dtype name -> torch dtype
TORCH_DTYPE: dict[str, torch.dtype] = {name: dtype for dtype, (name, _) in _STORED.items()}


def tensor_from_torch(tensor: torch.Tensor) -> Tensor:
    """Return a tensor's bits under its safetensors dtype.

    Shares memory with a strided tensor on the CPU, whatever its strides; copies only from another
    device or to resolve a pending conjugation or negation.

    Raises:
        StateDictError: the tensor holds no plain strided values (sparse, quantised, on the meta
            device, uninitialised, a wrapper subclass), or its dtype has no name in safetensors.
    """
    if reason := _refusal(tensor):
        raise StateDictError(reason)
    name, stored = _STORED[tensor.dtype]
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    # not numpy(), which keeps the tensor's storage from being resized ever after
    return Tensor(np.from_dlpack(plain.view(stored)), name)


def tensor_to_torch(tensor: Tensor) -> torch.Tensor:
    """Return a contiguous copy of a tensor on the CPU, bit for bit."""
    return torch.from_numpy(np.array(tensor.bits, order="C")).view(TORCH_DTYPE[tensor.dtype])


def tensor_view(tensor: Tensor) -> torch.Tensor:
    """Return a tensor on the CPU, only to be read: over the same memory where PyTorch can."""
    bits = np.asarray(tensor.bits)
    if min(bits.strides, default=0) < 0 or not bits.flags.aligned:
        return tensor_to_torch(tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it must not be written to
        return torch.from_numpy(bits).view(TORCH_DTYPE[tensor.dtype])


def _refusal(tensor: torch.Tensor) -> str:
    if torch.nn.parameter.is_lazy(tensor):
        return "the tensor is uninitialised: run the model once, or load a checkpoint into it"
    if tensor.is_quantized:
        return "the tensor is quantised: call .dequantize() first"
    if tensor.is_nested:
        return "the tensor is nested: keep it padded, with a mask"
    if tensor.layout != torch.strided:
        return f"the tensor is {tensor.layout}: call .to_dense() first"
    if tensor.device.type == "meta":
        return "the tensor is on the meta device and holds no values: load a checkpoint first"
    if is_traceable_wrapper_subclass(tensor):
        return f"the tensor is a {type(tensor).__name__}, not plain values: unwrap it first"
    if tensor.dtype not in _STORED:
        return f"dtype {tensor.dtype} has no name in the safetensors format: cast it first"
    return ""
