"""The values of an array in C order, a block at a time, whatever its strides.

A whole copy of a large weight costs memory. numpy's copy of a transposed one reads down its columns
and finds each value in another page, or all of them in one set of the cache; here rows are copied
into a tile that the cache holds, and turned there.
Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 20
# Of what is mapped, how much may be read before it is asked again whether its file is whole.
CHECKED = 1 << 26
# Of a tile: what the second-level cache holds beside the block that is being filled, its rows, and
# how much longer than its values a row is, so that no two rows begin in the same cache set.
_TILE = 1 << 18
_ROWS = 512
_PAD = 64
# What is copied whole: in the first-level cache numpy's copy is as good as any.
_SMALL = 1 << 14
# Where a column's values lie closer together, numpy's copy is as fast or faster.
_FAR = 1 << 10
_NARROW = 16

_Array = npt.NDArray[Any]


def blocks(
    bits: _Array, size: int = BLOCK, check: Callable[[], None] | None = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the bytes of an array in C order; each block only holds until the next is asked for.

    Args:
        bits: of any strides. C-contiguous ones are not copied.
        size: of a block in bytes; a single value may be larger.
        check: called whenever 64 MiB have been read and more is to come.
    """
    unchecked = 0
    for block in _blocks(bits, size):
        yield block
        unchecked += block.nbytes
        if check is not None and unchecked >= CHECKED:  # before the next is copied
            check()
            unchecked = 0


def _blocks(bits: _Array, size: int) -> Iterator[npt.NDArray[np.uint8]]:
    bits = np.asarray(bits)  # subclasses may change every view
    if not bits.size:
        return
    if bits.flags.c_contiguous:
        flat = bits.reshape(-1).view(np.uint8)
        yield from (flat[start : start + size] for start in range(0, flat.size, size))
        return
    if bits.nbytes <= min(size, _SMALL):
        yield np.ascontiguousarray(bits).reshape(-1).view(np.uint8)
        return
    buffer = np.empty(max(1, min(size, bits.nbytes) // bits.itemsize), bits.dtype)
    tile = np.empty((_TILE + _ROWS * _PAD) // bits.itemsize, bits.dtype)
    for piece in _pieces(_merged(bits), size):
        block = buffer[: piece.size]
        _copy(block.reshape(piece.shape), piece, tile)
        yield block.view(np.uint8)


def _merged(bits: _Array) -> _Array:
    """Return a view with as few axes as the strides allow, of the same values in C order."""
    shape: list[int] = []
    last = 0
    for n, stride in zip(bits.shape, bits.strides, strict=True):
        if n == 1:
            continue
        if shape and last == n * stride:
            shape[-1] *= n
        else:
            shape.append(n)
        last = stride
    return bits.reshape(shape)


def _pieces(bits: _Array, size: int) -> Iterator[_Array]:
    """Cut an array along its first axes into pieces of at most ``size`` bytes, in C order."""
    if bits.nbytes <= size or not bits.ndim:
        yield bits
        return
    row = bits.nbytes // len(bits)
    if row > size:
        for part in bits:
            yield from _pieces(part, size)
        return
    step = size // row
    for start in range(0, len(bits), step):
        yield bits[start : start + step]


def _copy(out: _Array, source: _Array, tile: _Array) -> None:
    """Copy to a C-contiguous array."""
    is_turned = source.ndim > 1 and source.strides[-2] == source.itemsize
    if not is_turned or abs(source.strides[-1]) < _FAR:
        np.copyto(out, source)
    elif source.shape[-1] < _NARROW:
        for column in range(source.shape[-1]):
            np.copyto(out[..., column], source[..., column])
    else:
        for place in np.ndindex(source.shape[:-2]):
            _turn(out[place], source[place], tile)


def _turn(out: _Array, source: _Array, tile: _Array) -> None:
    """Copy a matrix whose columns lie in one piece, to one whose rows do."""
    rows, columns = source.shape
    width = min(columns, _ROWS)
    height = max(_NARROW, _TILE // (width * source.itemsize))
    pitch = height + _PAD // source.itemsize
    turned = tile[: width * pitch].reshape(width, pitch)
    for left in range(0, columns, width):
        for top in range(0, rows, height):
            part = source[top : top + height, left : left + width]
            cached = turned[: part.shape[1], : part.shape[0]]
            np.copyto(cached, part.T)
            np.copyto(out[top : top + height, left : left + width], cached.T)
