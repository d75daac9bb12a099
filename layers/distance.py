"""Distances between points."""

import math

import mlx.core as mx


def cdist(x: mx.array, y: mx.array, p: float = 2.0) -> mx.array:
    """Distances between every two rows; matches ``torch.cdist``.

    Differences are taken element by element. PyTorch's own default takes them through a matrix
    product where there are more than 25 rows, which loses the distances of near points.

    Args:
        x: ``(*B, P, M)``, floating.
        y: ``(*B, R, M)``; the leading axes broadcast.
        p: The norm: 0 counts what differs, infinity takes the largest difference.

    Returns:
        ``(*B, P, R)``; zeros where ``M`` is 0.

    Raises:
        ValueError: ``p`` is negative, or the rows are not of one length.
    """
    if p < 0 or x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"[cdist] inputs must be (*, P, M) and (*, R, M) and 'p' not negative "
            f"but got {x.shape}, {y.shape} and p={p}."
        )
    difference = mx.abs(x[..., :, None, :] - y[..., None, :, :])
    if difference.shape[-1] == 0:
        return mx.zeros(difference.shape[:-1], dtype=difference.dtype)
    if p == 0:
        return (difference != 0).sum(axis=-1).astype(difference.dtype)
    if p == 1:
        return difference.sum(axis=-1)
    if p == 2:
        return mx.sqrt(mx.square(difference).sum(axis=-1))
    if math.isinf(p):
        return difference.max(axis=-1)
    return (difference**p).sum(axis=-1) ** (1 / p)
