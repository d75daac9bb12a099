"""Keep what is recorded of a run in a file once it is much, so that it takes no memory.

The inputs of all layers, in whole, are more than many a machine has memory for.
"""

from __future__ import annotations

import logging
import mmap
import os
import tempfile
import weakref
from typing import IO

import numpy as np
import torch

from mlxport.converter.parity.verdict.reference_data import NumpyArray

IN_MEMORY = 2**28
_SMALL = 2**16  # bytes of an array that is not worth its place in a file
_SEGMENT = 2**28  # bytes mapped at once; a file of its own for each array would be too many
_ALIGNMENT = 64

_logger = logging.getLogger(__name__)


class SpillFile:
    """Keeps arrays in memory up to some bytes, and further ones in a temporary file.

    They are mapped from there, so that the system reads them as they are used, and drops them where
    it wants the memory. The file has no name and goes with the last array. Where it cannot be
    written, arrays stay in memory.

    Args:
        in_memory: how many bytes of arrays stay in memory.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._left = in_memory
        self._file: IO[bytes] | None = None
        self._segments: list[mmap.mmap] = []
        self._begin = 0  # of the last segment, in the file
        self._end = 0  # of what is written to the last segment

    def array(self, values: NumpyArray) -> NumpyArray:
        """Return an array that is to be kept, or the same values in the file."""
        if not self._spills(values.nbytes) or values.dtype.hasobject:
            return values
        place = self._written(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
        if place is None:
            return values
        segment, offset = place
        found = np.frombuffer(segment, values.dtype, values.size, offset)
        return found.reshape(values.shape)

    def tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a dense tensor that is to be kept, or one with the same values in the file."""
        if type(tensor) is not torch.Tensor or not _is_plain(tensor):
            return tensor
        if not self._spills(tensor.nbytes):
            return tensor
        flat = tensor.as_strided((tensor.numel(),), (1,))
        place = self._written(flat.view(torch.uint8).numpy())
        if place is None:
            return tensor
        segment, offset = place
        count = tensor.numel()
        found = torch.frombuffer(segment, dtype=tensor.dtype, count=count, offset=offset)
        return found.as_strided(tensor.shape, tensor.stride())

    def release(self) -> None:
        """Give the memory into which arrays were read back to the system; they stay in the file."""
        for segment in self._segments:
            segment.madvise(mmap.MADV_DONTNEED)

    def _spills(self, size: int) -> bool:
        """Tell whether an array of some bytes goes to the file; count it where it does not."""
        if size < _SMALL:
            return False
        if size > self._left:
            return True
        self._left -= size
        return False

    def _written(self, data: NumpyArray) -> tuple[mmap.mmap, int] | None:
        """Write bytes; return where they are mapped, None where the file cannot be written."""
        try:
            segment, offset = self._room(data.size)
            place, rest = self._begin + offset, data.data
            while rest:
                count = os.pwrite(self._descriptor(), rest, place)
                place, rest = place + count, rest[count:]
        except OSError as error:  # no room, or no folder for such files
            _logger.warning("what is recorded stays in memory, no file takes it: %s", error)
            self._left = 2**63
            return None
        return segment, offset

    def _room(self, size: int) -> tuple[mmap.mmap, int]:
        """Return a segment with room for some bytes, and where in it."""
        offset = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        if not self._segments or offset + size > len(self._segments[-1]):
            begin = self._begin + len(self._segments[-1]) if self._segments else 0
            unit = mmap.ALLOCATIONGRANULARITY
            length = max(_SEGMENT, -(-size // unit) * unit)
            os.ftruncate(self._descriptor(), begin + length)
            segment = mmap.mmap(self._descriptor(), length, offset=begin)
            self._segments.append(segment)
            self._begin, offset = begin, 0
        self._end = offset + size
        return self._segments[-1], offset

    def _descriptor(self) -> int:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="mlxport-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        return self._file.fileno()


def _is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is its bytes in memory, each of them once."""
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_conj() or tensor.is_neg() or tensor.is_quantized)
        and tensor.untyped_storage().nbytes() == tensor.nbytes
    )
