import numpy as np
import pytest
import torch

from mlxport.converter.plan.tensor import STORAGE, Tensor
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE, tensor_from_torch, tensor_to_torch


@pytest.mark.parametrize("shape", [(), (0, 3), (4, 6)], ids=str)
@pytest.mark.parametrize("dtype", STORAGE)
def test_every_dtype_goes_there_and_back_by_bits(dtype, shape) -> None:
    raw = np.random.randint(0, 2 if dtype == "BOOL" else 256, (*shape, STORAGE[dtype].itemsize))
    bits = raw.astype(np.uint8).view(STORAGE[dtype]).reshape(shape)
    there = tensor_to_torch(Tensor(bits, dtype))
    assert (there.dtype, tuple(there.shape)) == (TORCH_DTYPE[dtype], shape)
    back = tensor_from_torch(there)
    assert (back.dtype, back.shape, back.bits.tobytes()) == (dtype, shape, bits.tobytes())


@pytest.mark.parametrize(
    "dtype", [name for name in STORAGE if name.startswith(("F8", "F16", "BF"))]
)
def test_every_pattern_keeps_its_bits(dtype) -> None:
    width = STORAGE[dtype].itemsize
    bits = np.arange(256**width, dtype=f"u{width}").view(STORAGE[dtype])
    back = tensor_from_torch(tensor_to_torch(Tensor(bits.reshape(16, -1).T, dtype)))
    assert np.ascontiguousarray(back.bits.T).tobytes() == bits.tobytes()


@pytest.mark.parametrize("dtype", ["F32", "BF16", "BOOL"])
def test_views_go_as_they_look(dtype) -> None:
    bits = np.arange(24).reshape(4, 6).astype(STORAGE[dtype])[::-1, ::2].T
    there = tensor_to_torch(Tensor(bits, dtype))
    assert there.is_contiguous()
    assert (tensor_from_torch(there).bits == bits).all()


def test_the_copy_is_one() -> None:
    bits = np.zeros(3, np.float32)
    there = tensor_to_torch(Tensor(bits, "F32"))
    there += 1
    assert bits.sum() == 0
    assert torch.equal(there, torch.ones(3))


def test_the_storage_can_still_be_resized():
    tensor = torch.ones(3)
    tensor_from_torch(tensor)
    assert tensor.untyped_storage().resizable()
