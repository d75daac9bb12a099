"""Where MLX scatters elements of a dtype: its Metal backend has no kernel for the widest ones."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import mlx.core as mx


def scatter_stream(dtype: mx.Dtype, *, sums: bool = False) -> AbstractContextManager[object]:
    """Return the context in which arrays of a dtype are scattered: ``x.at[…]``, ``x[…] = …``.

    Elements of 8 bytes (int64, uint64, complex64 and float64) go to the CPU's stream, as Metal
    scatters none of them, except for sums of complex64. The CPU's result is exact, and shared
    memory makes copies needless.

    Args:
        dtype: of what is scattered.
        sums: whether it is added to what is there.
    """
    if dtype.size < 8 or (sums and dtype == mx.complex64):
        return nullcontext()
    return mx.stream(mx.cpu)
