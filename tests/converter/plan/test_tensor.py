from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import (
    MLX_DTYPE,
    STORAGE,
    Tensor,
    from_float64,
    to_float64,
    to_mlx,
)
from mlxport.converter.plan.torch_tensor import tensor_from_torch

# complex numbers cannot be viewed as bytes in MLX; they have a test of their own
VIEWED = sorted(set(MLX_DTYPE) - {"C64"})


@given(data=st.data(), dtype=st.sampled_from(VIEWED))
def test_to_mlx_keeps_every_bit(data: st.DataObject, dtype: str) -> None:
    storage = STORAGE[dtype]
    shape = data.draw(hnp.array_shapes(max_dims=4, max_side=3), label="shape")
    raw = data.draw(
        hnp.arrays(np.uint8, (*shape, storage.itemsize), fill=st.nothing()), label="bytes"
    )
    raw = raw % 2 if dtype == "BOOL" else raw
    bits = np.ascontiguousarray(raw).view(storage).reshape(shape)
    array = to_mlx(Tensor(bits, dtype))
    assert array.dtype == getattr(mx, MLX_DTYPE[dtype])
    assert array.shape == shape
    assert np.array(mx.contiguous(array).view(mx.uint8)).tobytes() == bits.tobytes()


def test_to_mlx_keeps_complex_numbers() -> None:
    bits = np.array([1 + 2j, complex(-0.0, np.inf)], np.complex64)
    assert np.array(to_mlx(Tensor(bits, "C64"))).tobytes() == bits.tobytes()


STRIDES: dict[str, Any] = {
    "transposed": lambda a: a.T,
    "reversed": lambda a: a[::-1, ::-1],
    "strided": lambda a: a[:, ::2],
    "broadcast": lambda a: np.broadcast_to(a[:, :1], a.shape),
}


@pytest.mark.parametrize("view", STRIDES.values(), ids=STRIDES)
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_to_mlx_takes_any_strides(view: Any, dtype: str) -> None:
    array = view(np.arange(12, dtype=STORAGE[dtype]).reshape(3, 4))
    result = to_mlx(Tensor(array, dtype))
    result = result.view(mx.uint16) if dtype == "BF16" else result
    assert np.array_equal(np.array(result), array)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)], ids=str)
def test_to_mlx_keeps_scalars_and_empty_shapes(shape: tuple[int, ...]) -> None:
    assert to_mlx(Tensor(np.zeros(shape, np.float32), "F32")).shape == shape


@pytest.mark.parametrize("dtype", sorted(set(STORAGE) - set(MLX_DTYPE)))
def test_dtype_mlx_lacks_is_an_error_with_the_next_step(dtype: str) -> None:
    with pytest.raises(CheckpointError, match=f"no counterpart of dtype {dtype}.*Cast the model"):
        to_mlx(Tensor(np.zeros(2, STORAGE[dtype]), dtype))


def test_unknown_dtype_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="'F4' is not one mlxport knows: BOOL, U8"):
        Tensor(np.zeros(2, np.uint8), "F4")


@pytest.mark.parametrize("dtype", STORAGE)
def test_storage_of_another_dtype_is_an_error(dtype: str) -> None:
    other = np.dtype("int32") if STORAGE[dtype] != np.dtype("int32") else np.dtype("uint8")
    with pytest.raises(CheckpointError, match=rf"{dtype} tensor is stored as .*, got {other}"):
        Tensor(np.zeros(2, other), dtype)


def test_with_bits_keeps_the_dtype() -> None:
    tensor = Tensor(np.zeros((2, 3), np.uint16), "BF16")
    assert tensor.shape == (2, 3)
    turned = tensor.with_bits(tensor.bits.T)
    assert (turned.dtype, turned.shape) == ("BF16", (3, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_float64_there_and_back(dtype: torch.dtype) -> None:
    bits = torch.arange(2**16).to(torch.uint16)
    values = bits.view(dtype) if dtype != torch.float32 else bits.view(torch.bfloat16).float()
    tensor = tensor_from_torch(values)
    wide = to_float64(tensor)
    np.testing.assert_array_equal(wide, values.double().numpy())
    back = from_float64(wide, tensor.dtype)
    same = back.bits.view(tensor.bits.dtype) == tensor.bits
    assert np.all(same | np.isnan(wide))
    assert np.isnan(to_float64(back))[np.isnan(wide)].all()


@given(
    st.lists(
        st.floats(width=64, allow_nan=True) | st.floats(-70000, 70000), min_size=1, max_size=20
    )
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_rounding_is_torchs(dtype: torch.dtype, values: list[float]) -> None:
    wide = torch.tensor(values, dtype=torch.float64)
    want = wide.float().to(dtype) if dtype == torch.bfloat16 else wide.numpy()
    if dtype != torch.bfloat16:  # numpy rounds once; torch reaches float16 by way of float32
        with np.errstate(over="ignore"):
            want = torch.from_numpy(want.astype(str(dtype).removeprefix("torch.")))
    got = to_float64(from_float64(wide.numpy(), tensor_from_torch(want).dtype))
    np.testing.assert_array_equal(got, want.double().numpy())


def test_integers_are_no_floats() -> None:
    with pytest.raises(CheckpointError, match="got I64"):
        to_float64(Tensor(np.zeros(2, np.int64), "I64"))
    with pytest.raises(CheckpointError, match="got I64"):
        from_float64(np.zeros(2), "I64")
