"""Orthogonal matrices from their parameters, as PyTorch's parametrisation makes them; in float64.

Matches ``torch.nn.utils.parametrizations.orthogonal``. The maps themselves are Lezcano-Casado and
Martínez-Rubio's (exponential, Cayley) and LAPACK's ``orgqr`` (Householder).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Matrices = npt.NDArray[np.float64]


def orthogonal(method: str, parameters: Matrices, base: Matrices | None) -> Matrices:
    """Return the matrices with orthonormal columns, or rows where these are fewer.

    Args:
        method: ``matrix_exp``, ``cayley`` or ``householder``.
        parameters: ``(..., n, k)``; of the tall form only the lower triangle counts.
        base: ``(..., n, n)`` or ``(..., n, k)``, tall: what the result is multiplied by.
    """
    tall = parameters.shape[-2] >= parameters.shape[-1]
    columns = MAPS[method](parameters if tall else _transposed(parameters))
    if base is not None:
        columns = base @ columns
    return columns if tall else _transposed(columns)


def _exponential(tall: Matrices) -> Matrices:
    # i times a skew-symmetric matrix is Hermitian: its eigenvectors are orthonormal
    values, vectors = np.linalg.eigh(1j * _skew(tall))
    turned = vectors * np.exp(-1j * values)[..., None, :] @ _transposed(vectors).conj()
    return _first_columns(turned.real, tall)


def _cayley(tall: Matrices) -> Matrices:
    skew = _skew(tall)
    unit = np.eye(skew.shape[-1])
    solved: Any = np.linalg.solve(unit - skew / 2, unit + skew / 2)
    columns: Matrices = solved[..., : tall.shape[-1]]
    return columns


def _householder(tall: Matrices) -> Matrices:
    *_, rows, count = tall.shape
    below = np.tril(tall, -1)
    scale = 2 / (1 + np.sum(np.square(below), axis=-2))
    product: Any = np.broadcast_to(np.eye(rows, count), tall.shape)
    for i in reversed(range(count)):
        normal = below[..., i] + np.eye(rows)[i]
        along = normal[..., None, :] @ product
        product = product - scale[..., i, None, None] * normal[..., :, None] * along
    signs = np.trunc(np.diagonal(tall, axis1=-2, axis2=-1))
    columns: Matrices = product * signs[..., None, :]
    return columns


def _skew(tall: Matrices) -> Matrices:
    *batch, rows, count = tall.shape
    square = np.zeros((*batch, rows, rows))
    square[..., :count] = np.tril(tall)
    skew: Matrices = square - _transposed(square)
    return skew


def _first_columns(square: Matrices, tall: Matrices) -> Matrices:
    return square[..., : tall.shape[-1]]


def _transposed(matrices: Any) -> Any:
    return np.swapaxes(matrices, -1, -2)


MAPS: dict[str, Callable[[Matrices], Matrices]] = {
    "matrix_exp": _exponential,
    "cayley": _cayley,
    "householder": _householder,
}
