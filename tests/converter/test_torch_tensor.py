from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from mlxport.converter.errors import StateDictError
from mlxport.converter.tensor import STORAGE
from mlxport.converter.torch_tensor import tensor_from_torch

DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
}


def every_byte(dtype: torch.dtype) -> torch.Tensor:
    """A tensor of all byte values: NaN payloads, subnormals and infinities among them."""
    raw = torch.arange(256, dtype=torch.uint8)
    return (raw % 2).view(dtype) if dtype == torch.bool else raw.flip(0).view(dtype)


@pytest.mark.parametrize(("dtype", "name"), DTYPES.items(), ids=str)
def test_bits_are_those_of_the_tensor(dtype: torch.dtype, name: str) -> None:
    tensor = every_byte(dtype)
    result = tensor_from_torch(tensor)
    assert result.dtype == name
    assert result.bits.dtype == STORAGE[name]
    assert result.bits.tobytes() == tensor.view(torch.uint8).numpy().tobytes()


def test_every_dtype_of_the_format_is_covered() -> None:
    assert set(DTYPES.values()) == set(STORAGE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_strided_tensors_share_memory(dtype: torch.dtype) -> None:
    base = torch.zeros(4, 6, dtype=dtype)
    view = tensor_from_torch(torch.nn.Parameter(base).t()[::2, 1:])
    assert view.shape == (3, 3)
    base.fill_(1)
    assert view.bits.all()


def test_expanded_and_scalar_tensors() -> None:
    assert tensor_from_torch(torch.ones(1, 3).expand(2, 3)).shape == (2, 3)
    assert tensor_from_torch(torch.tensor(2.0)).shape == ()


def test_pending_conjugation_and_negation_are_resolved() -> None:
    z = torch.tensor([1 + 2j, 3 - 4j])
    assert np.array_equal(tensor_from_torch(z.conj()).bits, np.array([1 - 2j, 3 + 4j]))
    negative = z.conj().imag
    assert negative.is_neg()
    assert np.array_equal(tensor_from_torch(negative).bits, np.array([-2.0, 4.0]))


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


REFUSED: dict[str, tuple[Any, str]] = {
    "meta": (lambda: torch.ones(2, device="meta"), "meta device .* load a checkpoint"),
    "sparse": (lambda: torch.eye(2).to_sparse(), r"sparse_coo: call .to_dense\(\)"),
    "uninitialised": (
        lambda: torch.nn.LazyLinear(2).weight,
        "uninitialised: run the model once",
    ),
    "wrapper": (lambda: TwoTensor(torch.ones(2), torch.ones(2)), "TwoTensor, not plain values"),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "complex128 has no name"),
    "quantised": (quantised, r"quantised: call .dequantize\(\)"),
}


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:.*quantize_per")
@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_tensors_without_plain_values_are_refused(build: Any, message: str) -> None:
    with pytest.raises(StateDictError, match=message):
        tensor_from_torch(build())
