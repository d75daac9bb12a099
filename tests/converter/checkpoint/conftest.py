"""Tensors of random bits, and files made of them."""

import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from mlxport.converter.plan.tensor import STORAGE, Tensor

MakeTensor = Callable[..., Tensor]
WriteFile = Callable[..., Path]


@pytest.fixture(scope="session")
def peak_memory() -> Callable[[], int]:
    """Return the most memory that this process ever had resident, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.fixture
def random_bits() -> MakeTensor:
    """Make a tensor of any dtype whose bits are random: NaN payloads and infinities included."""

    def make(dtype: str, shape: tuple[int, ...] = (3, 4, 2)) -> Tensor:
        storage = STORAGE[dtype]
        if dtype == "BOOL":
            return Tensor(np.random.randint(0, 2, shape).astype(bool), dtype)
        size = int(np.prod(shape)) * storage.itemsize
        raw = np.frombuffer(np.random.bytes(size), dtype=storage)
        return Tensor(raw.reshape(shape), dtype)

    return make


@pytest.fixture
def write_raw(tmp_path: Path) -> WriteFile:
    """Write a safetensors file from its parts, right or wrong."""

    def write(
        header: bytes, data: bytes = b"", length: int | None = None, name: str = "x.safetensors"
    ) -> Path:
        path = tmp_path / name
        size = len(header) if length is None else length
        path.write_bytes(size.to_bytes(8, "little") + header + data)
        return path

    return write


def raw_bits(tensor: Tensor) -> bytes:
    return np.ascontiguousarray(tensor.bits).tobytes()


@pytest.fixture
def same_bits() -> Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], bool]:
    """Compare names, dtypes, shapes and bits of two mappings."""

    def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
        def facts(tensors: Mapping[str, Tensor]) -> dict[str, object]:
            return {k: (t.dtype, t.shape, raw_bits(t)) for k, t in tensors.items()}

        return facts(one) == facts(other)

    return same
