"""LU decompositions in float32, and what is made of them.

MLX factorises on the CPU only, so the call names the CPU as its stream.
"""

from __future__ import annotations

import mlx.core as mx

from mlxport.layers.arrays.linear_algebra import first_code, solve_triangular


def lu_factor(x: mx.array) -> tuple[mx.array, mx.array]:
    """Return both triangles of the LU decomposition in one array, and the pivots from 1.

    Matches ``torch.linalg.lu_factor`` of ``(*B, M, N)`` in float32.
    """
    if x.size == 0:
        *batch, rows, columns = x.shape
        ascending = mx.arange(1, min(rows, columns) + 1, dtype=mx.int32)
        return x, mx.broadcast_to(ascending, (*batch, ascending.size))
    packed, pivots = mx.linalg.lu_factor(x, stream=mx.cpu)
    return packed, pivots.astype(mx.int32) + 1


def lu_codes(packed: mx.array) -> mx.array:
    """Return the error codes of ``torch.linalg.lu_factor_ex``: 0, or where U has its first zero.

    Args:
        packed: both triangles, ``(*B, M, N)``.

    Returns:
        ``(*B,)`` of int32, counted from 1.
    """
    if packed.size == 0:
        return mx.zeros(packed.shape[:-2], dtype=mx.int32)
    return first_code(mx.diagonal(packed, 0, -2, -1) == 0)


def lu(x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Return ``P``, ``L`` and ``U`` where ``P @ L @ U = x``, as ``torch.linalg.lu``.

    Args:
        x: ``(*B, M, N)``, float32.
    """
    return lu_unpack(*lu_factor(x))


def lu_unpack(packed: mx.array, pivots: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Return the three factors of a decomposition, as ``torch.lu_unpack``.

    Args:
        packed: both triangles, ``(*B, M, N)``.
        pivots: ``(*B, K)``, from 1; ``K`` is the smaller of ``M`` and ``N``.

    Returns:
        ``P`` ``(*B, M, M)``, ``L`` ``(*B, M, K)`` and ``U`` ``(*B, K, N)``.
    """
    rows, columns = packed.shape[-2:]
    least = min(rows, columns)
    taken = rows_of_pivots(pivots, rows)
    permutation = (mx.arange(rows)[:, None] == taken[..., None, :]).astype(packed.dtype)
    lower = mx.tril(packed[..., :least], -1) + mx.eye(rows, least, dtype=packed.dtype)
    return permutation, lower, mx.triu(packed[..., :least, :])


def lu_solve(
    packed: mx.array, pivots: mx.array, b: mx.array, left: bool = True, adjoint: bool = False
) -> mx.array:
    """Return ``x`` where ``a @ x = b``, given the LU decomposition of ``a``.

    Matches ``torch.linalg.lu_solve``.

    Args:
        packed: both triangles, ``(*B, N, N)``.
        pivots: ``(*B, N)``, from 1.
        b: ``(*B, N, K)``, or ``(*B, K, N)`` if not ``left``.
        left: whether to solve ``a @ x = b``, otherwise ``x @ a = b``.
        adjoint: whether the transpose of ``a`` takes its place.

    Raises:
        RuntimeError: a matrix is singular; raised at evaluation.
    """
    if not left:
        turned = lu_solve(packed, pivots, mx.swapaxes(b, -1, -2), adjoint=not adjoint)
        return mx.swapaxes(turned, -1, -2)
    permutation, lower, upper = lu_unpack(packed, pivots)
    if adjoint:
        y = solve_triangular(mx.swapaxes(upper, -1, -2), b, upper=False)
        y = solve_triangular(mx.swapaxes(lower, -1, -2), y, upper=True, unitriangular=True)
        return permutation @ y
    y = mx.swapaxes(permutation, -1, -2) @ b
    y = solve_triangular(lower, y, upper=False, unitriangular=True)
    return solve_triangular(upper, y, upper=True)


def rows_of_pivots(pivots: mx.array, rows: int) -> mx.array:
    """Return the rows of a matrix in the order in which exchanges by its pivots leave them.

    Args:
        pivots: ``(*B, K)``, from 1: with which row each is exchanged, in turn.
        rows: the number of all.

    Returns:
        ``(*B, rows)`` of int32, from 0.
    """
    places = mx.arange(rows, dtype=mx.int32)
    taken = mx.broadcast_to(places, (*pivots.shape[:-1], rows))
    for row in range(pivots.shape[-1]):
        other = pivots[..., row : row + 1].astype(mx.int32) - 1
        moved = mx.take_along_axis(taken, other, axis=-1)
        kept = taken[..., row : row + 1]
        taken = mx.where(places == row, moved, mx.where(places == other, kept, taken))
    return taken
