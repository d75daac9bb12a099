"""Read safetensors files: header checked first, tensors as views of the mapped file.

Needs no torch: bfloat16 and float8 come as their bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.mapped import Reader, mapped_at
from mlxport.converter.checkpoint.formats.safetensors_header import (
    LENGTH_BYTES,
    MAX_HEADER,
    Header,
    parse,
)
from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import STORAGE, Tensor


class SafetensorsFile(Mapping[str, Tensor]):
    """Name -> tensor of one safetensors file, in the order of the data; nothing is read ahead.

    Attributes:
        header: the checked header.
        mapped: the addresses of the file in memory.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                self.header, self._start = _read_header(file, path, found.st_size)
                self._data: npt.NDArray[np.uint8] = np.memmap(file, dtype=np.uint8, mode="r")
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        self.mapped = mapped_at(self._data, path, found)

    def __getitem__(self, name: str) -> Tensor:
        spec = self.header.specs[name]
        bits: npt.NDArray[Any] = np.ndarray(
            spec.shape, STORAGE[spec.dtype], self._data, self._start + self.header.offsets[name]
        )
        # Foreign files may place a tensor anywhere; not all that reads arrays minds the alignment.
        if bits.flags.aligned:
            return Tensor(bits, spec.dtype)
        with Reader(self.mapped) as read:
            tensor = read(Tensor(bits, spec.dtype))
        return tensor if tensor.bits.flags.aligned else tensor.with_bits(tensor.bits.copy())

    def __iter__(self) -> Iterator[str]:
        return iter(self.header.specs)

    def __len__(self) -> int:
        return len(self.header.specs)


def open_safetensors(path: Path) -> Checkpoint:
    """Open one safetensors file.

    Raises:
        CheckpointError: the file cannot be read or breaks the format; every violation is listed.
    """
    tensors = SafetensorsFile(path)
    # Tensors of one file never overlap: every name is memory of its own.
    storage = {name: name for name in tensors}
    return Checkpoint(path, tensors, storage, files=(path,), mapped=tensors.mapped)


def _read_header(file: BinaryIO, path: Path, size: int) -> tuple[Header, int]:
    """Return the header and where the data begins; reads no more than the file holds."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    start = LENGTH_BYTES + length
    if size < LENGTH_BYTES or length > MAX_HEADER or start > size:
        raise CheckpointError(
            f"{path}: not a whole safetensors file: it claims a header of {length} bytes and "
            f"has {size} bytes in all (a header may have {MAX_HEADER}). The file is cut short "
            "or something else: fetch or write it again."
        )
    return parse(file.read(length), size - start, str(path)), start
