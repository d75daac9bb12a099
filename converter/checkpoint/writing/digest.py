"""Digests of tensors, and of a source file while its tensors are converted. Needs no torch."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import xxhash

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.writing.blocks import blocks
from mlxport.converter.checkpoint.writing.finite import is_finite
from mlxport.converter.plan.tensor import STORAGE, Tensor

# What conversion.json calls it.
ALGORITHM = "xxh3_128"

# What fits the second-level cache, which each value is looked at three times from.
_BLOCK = 1 << 18


def examine(tensor: Tensor, check: Callable[[], None] | None = None) -> tuple[str, bool]:
    """Return a tensor's digest and whether it holds neither NaN nor infinity; reads it once.

    What is to be checked on the way is called as by `blocks`.

    The digest is the XXH3 (128 bits, hexadecimal) of the values in C order, little-endian. It tells
    damage and mistakes, not forgery: that is what the SHA-256 of the file is for.
    """
    digest, finite = xxhash.xxh3_128(), True
    for block in blocks(tensor.bits, _BLOCK, check):
        digest.update(block.data)
        finite = finite and is_finite(tensor.with_bits(block.view(STORAGE[tensor.dtype])))
    return digest.hexdigest(), finite


def digest_of(tensor: Tensor) -> str:
    """Return a tensor's digest."""
    return examine(tensor)[0]


@contextlib.contextmanager
def digesting(checkpoint: Checkpoint) -> Iterator[Callable[[], str]]:
    """Take the digest of a checkpoint's files in another thread; the call waits for it.

    Leaving the block early stops it.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        context = contextvars.copy_context()  # its time counts where this one's does
        future = pool.submit(context.run, checkpoint.digest, stop)
        try:
            yield future.result
        finally:
            stop.set()
