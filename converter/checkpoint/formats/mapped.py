"""Files mapped into memory, and giving their pages back once they were read.

A page that was read stays with the process, as part of its resident memory, until it is given
back; the file's content stays in the system's cache all the same. Needs no torch.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt

from mlxport.converter.plan.tensor import Tensor

_logger = logging.getLogger(__name__)

_MAPS = Path("/proc/self/maps")


def mapped_at(array: npt.NDArray[Any]) -> tuple[range, ...]:
    """Return the addresses of an array that is a whole mapped file."""
    start = array.__array_interface__["data"][0]
    return (range(start, start + array.nbytes),)


def mappings_of(path: Path) -> tuple[range, ...]:
    """Return the addresses at which a file is mapped; none where the system does not tell."""
    try:
        lines = _MAPS.read_bytes().splitlines()
        wanted = os.fsencode(os.path.realpath(path))
    except OSError as error:
        _logger.debug("the system does not tell where %s is mapped: %s", path, error)
        return ()
    found = []
    for line in lines:
        # address perms offset device inode path
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == wanted:
            start, end = (int(part, 16) for part in fields[0].split(b"-"))
            found.append(range(start, end))
    return tuple(found)


def release(arrays: Iterable[npt.NDArray[Any]], mapped: tuple[range, ...]) -> None:
    """Give back the pages of arrays that lie in mapped files; looked at again, they are read again.

    Arrays that lie elsewhere, and strided backwards, are left alone. Of a file that is mapped
    privately, nothing may have been changed in memory: that would be lost.
    """
    for array in arrays:
        if not array.size or min(array.strides, default=0) < 0:
            continue
        start = array.__array_interface__["data"][0]
        spans = zip(array.shape, array.strides, strict=True)
        end = start + array.itemsize + sum((n - 1) * stride for n, stride in spans)
        if any(start in addresses and end - 1 in addresses for addresses in mapped):
            first = start - start % mmap.PAGESIZE
            length = ctypes.c_size_t(end - first)
            _libc().madvise(ctypes.c_void_p(first), length, mmap.MADV_DONTNEED)


def released(
    pairs: Iterable[tuple[str, Tensor]], mapped: tuple[range, ...]
) -> Iterator[tuple[str, Tensor]]:
    """Yield named tensors, and give the pages of each back when the next one is asked for."""
    for name, tensor in pairs:
        yield name, tensor
        release([tensor.bits], mapped)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
