"""Binary search in sorted sequences (``torch.searchsorted``)."""

from __future__ import annotations

import mlx.core as mx


def searchsorted(sequence: mx.array, values: mx.array, right: bool = False) -> mx.array:
    """Return the indices at which values keep a sequence sorted, as ``torch.searchsorted``.

    Args:
        sequence: ascending along its last axis, ``(*B, N)``; or ``(N,)`` for values of any shape.
        values: ``(*B, M)``; NaN is sorted last.
        right: whether the index is after equal values, otherwise before.

    Returns:
        Numbers from 0 to ``N`` in the shape of ``values``, int64.
    """
    if sequence.ndim > 1:
        sequence, values = sequence[..., None, :], values[..., None]
    else:
        values = values[..., None]
    count = sequence.shape[-1]
    if count == 0 or values.size == 0:
        return mx.zeros(values.shape[:-1], dtype=mx.int64)
    before = ~(sequence > values) if right else ~(sequence >= values)
    return mx.sum(before.astype(mx.int64), axis=-1)
