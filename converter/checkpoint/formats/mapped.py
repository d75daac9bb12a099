"""Files mapped into memory: reading them elsewhere, and giving their pages back once read.

A page that was read stays with the process, as part of its resident memory, until it is given
back; the file's content stays in the system's cache all the same. A page that is no longer in the
file, as that was cut short, ends the process (SIGBUS). Needs no torch.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
from bisect import bisect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlxport.converter.checkpoint.checkpoint import MappedFile
from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import Tensor

_logger = logging.getLogger(__name__)

_MAPS = Path("/proc/self/maps")


# Of a tensor that is read from its file: what may be in memory besides all that is.
_LARGEST = 1 << 26


def mapped_at(array: npt.NDArray[Any], path: Path, found: os.stat_result) -> tuple[MappedFile, ...]:
    """Return where an array lies that is a whole mapped file."""
    start = array.__array_interface__["data"][0]
    return (MappedFile(range(start, start + array.nbytes), path, 0, found),)


def mappings_of(path: Path) -> tuple[MappedFile, ...]:
    """Return where a file is mapped; nothing where the system does not tell."""
    try:
        lines = _MAPS.read_bytes().splitlines()
        wanted = os.fsencode(os.path.realpath(path))
        status = path.stat()
    except OSError as error:
        _logger.debug("the system does not tell where %s is mapped: %s", path, error)
        return ()
    found = []
    for line in lines:
        # address perms offset device inode path
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == wanted:
            start, end = (int(part, 16) for part in fields[0].split(b"-"))
            found.append(MappedFile(range(start, end), path, int(fields[2], 16), status))
    return tuple(found)


class Reader:
    """Reads tensors of mapped files from the files, so that one cut short is an error.

    Nothing may have been changed in memory of a file that is mapped privately.

    Args:
        mapped: the files. One is open at a time.
    """

    def __init__(self, mapped: tuple[MappedFile, ...]) -> None:
        self._mapped = sorted(mapped, key=lambda file: file.addresses.start)
        self._starts = [file.addresses.start for file in self._mapped]
        self._last: MappedFile | None = None
        self._descriptor = -1

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return a tensor with the same strides, in memory of its own.

        As it is comes what lies elsewhere or is strided backwards, of more than 64 MiB, or of a
        file that has been replaced by another: that is still mapped.

        Raises:
            CheckpointError: the file is cut short, or cannot be read any more.
        """
        bits = tensor.bits
        span = _span(bits)
        file = self._file_of(span)
        if file is None or len(span) > _LARGEST or not self._opens(file):
            return tensor
        data = self._read(file, span)
        return tensor.with_bits(np.ndarray(bits.shape, bits.dtype, data, 0, bits.strides))

    def release(self, tensors: Iterable[Tensor]) -> None:
        """Give back the pages of those that are mapped still; see `release`."""
        for tensor in tensors:
            if file := self._file_of(_span(tensor.bits)):
                release([tensor.bits], (file,))

    def _file_of(self, span: range) -> MappedFile | None:
        number = bisect(self._starts, span.start) - 1
        if not span or number < 0:
            return None
        file = self._mapped[number]
        return file if span[-1] in file.addresses else None

    def _opens(self, file: MappedFile) -> bool:
        if file is self._last:
            return True
        self._close()
        try:
            descriptor = os.open(file.path, os.O_RDONLY)
        except OSError as error:  # it is mapped still
            _logger.debug("%s: %s", file.path, error)
            return False
        if not os.path.samestat(os.fstat(descriptor), file.found):
            os.close(descriptor)
            return False
        self._last, self._descriptor = file, descriptor
        return True

    def _read(self, file: MappedFile, span: range) -> bytes:
        place = file.offset + span.start - file.addresses.start
        parts: list[bytes] = []
        missing = len(span)
        try:
            while missing and (part := os.pread(self._descriptor, missing, place)):
                parts.append(part)
                place, missing = place + len(part), missing - len(part)
            if missing:
                raise file.cut_short(os.fstat(self._descriptor).st_size)
        except OSError as error:
            raise CheckpointError(f"{file.path}: cannot be read: {error.strerror}") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _close(self) -> None:
        if self._last is not None:
            os.close(self._descriptor)
        self._last = None


def read_anew(
    pairs: Iterable[tuple[str, Tensor]], mapped: tuple[MappedFile, ...]
) -> Iterator[tuple[str, Tensor]]:
    """Yield named tensors as a `Reader` reads them, and give back the pages of the others."""
    with Reader(mapped) as read:
        for name, tensor in pairs:
            yield name, read(tensor)
            read.release([tensor])


def release(arrays: Iterable[npt.NDArray[Any]], mapped: tuple[MappedFile, ...]) -> None:
    """Give back the pages of arrays that lie in mapped files; looked at again, they are read again.

    Arrays that lie elsewhere, and strided backwards, are left alone. Of a file that is mapped
    privately, nothing may have been changed in memory: that would be lost.
    """
    for array in arrays:
        span = _span(array)
        if span and any(
            span[0] in file.addresses and span[-1] in file.addresses for file in mapped
        ):
            first = span.start - span.start % mmap.PAGESIZE
            length = ctypes.c_size_t(span.stop - first)
            _libc().madvise(ctypes.c_void_p(first), length, mmap.MADV_DONTNEED)


def _span(array: npt.NDArray[Any]) -> range:
    """Return the addresses of an array's values; none if it is strided backwards."""
    if not array.size or min(array.strides, default=0) < 0:
        return range(0)
    start = array.__array_interface__["data"][0]
    spans = zip(array.shape, array.strides, strict=True)
    return range(start, start + array.itemsize + sum((n - 1) * stride for n, stride in spans))


def released(
    pairs: Iterable[tuple[str, Tensor]], mapped: tuple[MappedFile, ...]
) -> Iterator[tuple[str, Tensor]]:
    """Yield named tensors, and give the pages of each back when the next one is asked for."""
    for name, tensor in pairs:
        yield name, tensor
        release([tensor.bits], mapped)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
