import numpy as np
import pytest
import torch

from mlxport.converter.checkpoint.writing.finite import is_finite, non_finite
from mlxport.converter.plan.tensor import STORAGE, Tensor
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE, tensor_from_torch

EIGHT_BIT = [name for name in STORAGE if name.startswith("F8")]


@pytest.mark.parametrize("dtype", EIGHT_BIT)
def test_tells_every_8_bit_value_as_torch_does(dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(TORCH_DTYPE[dtype])
    expected = codes.double().isfinite().tolist()
    assert [is_finite(tensor_from_torch(code)) for code in codes] == expected
    assert not all(expected)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_tells_every_16_bit_value_as_torch_does(dtype) -> None:
    codes = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(TORCH_DTYPE[dtype])
    expected = codes.double().isfinite().tolist()
    bits = tensor_from_torch(codes).bits
    assert [is_finite(Tensor(bits[i : i + 1], dtype)) for i in range(2**16)] == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, complex(0, np.inf)])
@pytest.mark.parametrize("dtype", ["F32", "F64", "C64"])
def test_tells_wide_values(value, dtype) -> None:
    if isinstance(value, complex) and dtype != "C64":
        value = value.imag
    bits = np.array([0, value], STORAGE[dtype])
    assert not is_finite(Tensor(bits, dtype))
    assert is_finite(Tensor(bits[:1], dtype))
    assert is_finite(Tensor(bits[:0], dtype))


@pytest.mark.parametrize("dtype", ["BOOL", "U8", "U16", "I16", "I64", "U64"])
def test_integers_are_finite(dtype, random_bits) -> None:
    assert is_finite(random_bits(dtype))
    assert is_finite(Tensor(np.ones(3, STORAGE[dtype]), dtype))


def test_names_them_all() -> None:
    bad = Tensor(np.array([np.nan], np.float32), "F32")
    good = Tensor(np.array([1], np.float32), "F32")
    assert non_finite([("a", bad), ("b", good), ("c", bad)]) == ["a", "c"]
