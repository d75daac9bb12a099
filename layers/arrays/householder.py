"""Products of Householder reflections, and the QR decomposition that keeps them, in float32."""

from __future__ import annotations

import mlx.core as mx

from mlxport.layers.arrays.linear_algebra import qr


def householder_product(x: mx.array, scales: mx.array) -> mx.array:
    """Return the first columns of a product of Householder reflections.

    Matches ``torch.linalg.householder_product``.

    Args:
        x: ``(*B, M, N)``, float32: a reflection's vector below the diagonal of each column.
        scales: ``(*B, K)``, ``K`` at most ``N``.
    """
    *_, rows, columns = x.shape
    return reflect(x, scales, mx.broadcast_to(mx.eye(rows, columns), x.shape))


def reflect(
    x: mx.array, scales: mx.array, y: mx.array, left: bool = True, transpose: bool = False
) -> mx.array:
    """Return the product of the reflections' matrix ``Q`` with another, as ``torch.ormqr``.

    Args:
        x: ``(*B, M, N)``, float32: a reflection's vector below the diagonal of each column.
        scales: ``(*B, K)``, ``K`` at most ``N``.
        y: ``(*B, M, L)``, or ``(*B, L, M)`` if not ``left``.
        left: whether to compute ``Q @ y``, otherwise ``y @ Q``.
        transpose: whether the transpose of ``Q`` takes its place.
    """
    if not left:
        turned = reflect(x, scales, mx.swapaxes(y, -1, -2), transpose=not transpose)
        return mx.swapaxes(turned, -1, -2)
    *_, rows, columns = x.shape
    below = mx.tril(x, -1) + mx.eye(rows, columns)
    reflections = range(scales.shape[-1])
    for k in reflections if transpose else reversed(reflections):
        vector = below[..., k : k + 1]
        product = mx.swapaxes(vector, -1, -2) @ y
        y = y - scales[..., k, None, None] * (vector @ product)
    return y


def geqrf(x: mx.array) -> tuple[mx.array, mx.array]:
    """Return the QR decomposition as LAPACK keeps it, as ``torch.geqrf``.

    The reflections' vectors are found again in ``Q``: without its ones it is a lower triangle of
    these times an upper one (Ballard and others, "Reconstructing Householder vectors from
    tall-skinny QR", 2014).

    Args:
        x: ``(*B, M, N)``, float32.

    Returns:
        ``(*B, M, N)``: ``R``, and below it the vectors of the reflections; and their scales
        ``(*B, K)``, ``K`` the smaller of ``M`` and ``N``.
    """
    *batch, rows, columns = x.shape
    least = min(rows, columns)
    if x.size == 0:
        return x, mx.zeros((*batch, least))
    q, r = qr(x)
    rest = q - mx.eye(rows, least)
    vectors, scales = [], []
    places = mx.arange(rows)
    for k in range(least):
        pivot = rest[..., k : k + 1, k : k + 1]
        # no reflection leaves its column as it was: the last of a square matrix, say
        vector = mx.where(pivot == 0, 0.0, rest[..., k : k + 1] / mx.where(pivot == 0, 1.0, pivot))
        vector = mx.where(places[:, None] > k, vector, 0.0)
        scales.append(-pivot[..., 0])
        vectors.append(vector)
        rest = rest - (vector + (places[:, None] == k)) @ rest[..., k : k + 1, :]
    below = mx.concatenate(vectors, axis=-1)
    if columns > least:
        below = mx.concatenate([below, mx.zeros((*batch, rows, columns - least))], axis=-1)
    upper = mx.triu(r)
    if rows > least:
        upper = mx.concatenate([upper, mx.zeros((*batch, rows - least, columns))], axis=-2)
    return upper + below, mx.concatenate(scales, axis=-1)
