"""Linear algebra in float32: inverses, solvers, determinants and decompositions of matrices.

MLX computes these on the CPU only, so each call names the CPU as its stream. No arrays are copied:
memory is shared.
"""

from __future__ import annotations

import mlx.core as mx


def inverse(x: mx.array) -> mx.array:
    """Return the inverses of matrices, as ``torch.linalg.inv``.

    Args:
        x: ``(*B, N, N)``, float32.

    Raises:
        RuntimeError: one is singular; raised at evaluation.
    """
    return x if x.size == 0 else mx.linalg.inv(x, stream=mx.cpu)


def solve(a: mx.array, b: mx.array, left: bool = True) -> mx.array:
    """Return ``x`` where ``a @ x = b``, or ``x @ a = b``, as ``torch.linalg.solve``.

    Args:
        a: ``(*B, N, N)``, float32.
        b: ``(*B, N, K)`` or vectors (``(N,)``, or the shape of ``a`` without its last axis);
            ``(*B, K, N)`` if not ``left``.
        left: whether to solve ``a @ x = b``, otherwise ``x @ a = b``.

    Raises:
        RuntimeError: a matrix is singular; raised at evaluation.
    """
    if not left:
        return mx.swapaxes(solve(mx.swapaxes(a, -1, -2), mx.swapaxes(b, -1, -2)), -1, -2)
    vectors = b.ndim == 1 or (a.ndim - 1 == b.ndim and b.shape == a.shape[:-1])
    columns, inverted = b[..., None] if vectors else b, inverse(a)
    y = inverted @ columns
    y = y + inverted @ (columns - a @ y)  # one step of refinement
    return y[..., 0] if vectors else y


def determinant(x: mx.array) -> mx.array:
    """Return the determinants of matrices ``(*B, N, N)``, as ``torch.linalg.det``."""
    return mx.ones(x.shape[:-2]) if x.size == 0 else mx.linalg.det(x, stream=mx.cpu)


def log_determinant(x: mx.array) -> tuple[mx.array, mx.array]:
    """Return sign and logarithm of the magnitude of determinants, as ``torch.slogdet``."""
    if x.size == 0:
        return mx.ones(x.shape[:-2]), mx.zeros(x.shape[:-2])
    sign, logarithm = mx.linalg.slogdet(x, stream=mx.cpu)
    return sign, logarithm


def cholesky(x: mx.array, upper: bool = False) -> mx.array:
    """Return the Cholesky factors of matrices ``(*B, N, N)``, as ``torch.linalg.cholesky``.

    NaN where PyTorch raises: a matrix that is not positive-definite.
    """
    if x.size == 0:
        return x
    factor = mx.linalg.cholesky(x, upper=upper, stream=mx.cpu)
    pivots = mx.diagonal(factor, 0, -2, -1)
    return mx.where(mx.all(pivots > 0, axis=-1)[..., None, None], factor, mx.nan)


def cholesky_codes(x: mx.array, upper: bool = False) -> mx.array:
    """Return the error codes of ``torch.linalg.cholesky_ex``.

    Args:
        x: ``(*B, N, N)``, float32.
        upper: whether the upper triangle is read.

    Returns:
        ``(*B,)`` of int32: 0, or the order of the first minor that is not positive.
    """
    if x.size == 0:
        return mx.zeros(x.shape[:-2], dtype=mx.int32)
    pivots = mx.diagonal(mx.linalg.cholesky(x, upper=upper, stream=mx.cpu), 0, -2, -1)
    return first_code(~(pivots > 0))


def first_code(found: mx.array) -> mx.array:
    """Return the place of the first true of each row, counted from 1, or 0: ``(*B, N)`` bool."""
    place = mx.argmax(found, axis=-1).astype(mx.int32) + 1
    return mx.where(mx.any(found, axis=-1), place, 0)


def cholesky_inverse(factor: mx.array, upper: bool = False) -> mx.array:
    """Return the inverses of matrices from Cholesky factors, as ``torch.cholesky_inverse``."""
    return cholesky_solve(mx.eye(factor.shape[-1]), factor, upper)


def cholesky_solve(b: mx.array, factor: mx.array, upper: bool = False) -> mx.array:
    """Return ``x`` where ``A @ x = b``, given the Cholesky factor of ``A``.

    Matches ``torch.cholesky_solve``.

    Args:
        b: ``(*B, N, K)``, float32.
        factor: ``(*B, N, N)``; the other triangle is not read.
        upper: whether ``factor`` is the upper triangle.
    """
    lower = mx.swapaxes(mx.triu(factor), -1, -2) if upper else mx.tril(factor)
    inverted = inverse(lower)
    return mx.swapaxes(inverted, -1, -2) @ (inverted @ b)


def solve_triangular(
    a: mx.array, b: mx.array, upper: bool, left: bool = True, unitriangular: bool = False
) -> mx.array:
    """Return ``x`` where ``a @ x = b``, or ``x @ a = b``, as ``torch.linalg.solve_triangular``.

    Args:
        a: ``(*B, N, N)``, float32; the other triangle is not read.
        b: ``(*B, N, K)``, or ``(*B, K, N)`` if not ``left``.
        upper: whether ``a`` is the upper triangle.
        left: whether to solve ``a @ x = b``, otherwise ``x @ a = b``.
        unitriangular: whether the diagonal is taken as ones.
    """
    triangle = mx.triu(a) if upper else mx.tril(a)
    if unitriangular:
        one = mx.eye(a.shape[-1])
        triangle = mx.where(one == 1, one, triangle)
    inverted = inverse(triangle)
    return inverted @ b if left else b @ inverted


def qr(x: mx.array) -> tuple[mx.array, mx.array]:
    """Return orthogonal and upper triangular factors, as ``torch.linalg.qr(x, "reduced")``.

    Args:
        x: ``(*B, M, N)``, float32.

    Returns:
        ``(*B, M, K)`` and ``(*B, K, N)``, ``K`` the smaller of ``M`` and ``N``.
    """
    *batch, rows, columns = x.shape
    least = min(rows, columns)
    if x.size == 0:
        return mx.zeros((*batch, rows, least)), mx.zeros((*batch, least, columns))
    q, r = mx.linalg.qr(x, stream=mx.cpu)
    return q, r


def svd(x: mx.array, full_matrices: bool = True) -> tuple[mx.array, mx.array, mx.array]:
    """Return the singular value decomposition, as ``torch.linalg.svd``.

    Args:
        x: ``(*B, M, N)``, float32.
        full_matrices: whether both outer factors are square.

    Returns:
        ``U`` ``(*B, M, M or K)``, the singular values ``(*B, K)``, largest first, and ``Vh``
        ``(*B, N or K, N)``; ``K`` is the smaller of ``M`` and ``N``. LAPACK chooses the signs.
    """
    if x.size == 0:
        return _svd_of_nothing(x, full_matrices)
    u, s, vh = mx.linalg.svd(x, stream=mx.cpu)
    if full_matrices:
        return u, s, vh
    least = min(x.shape[-2:])
    return u[..., :least], s, vh[..., :least, :]


def _svd_of_nothing(x: mx.array, full_matrices: bool) -> tuple[mx.array, mx.array, mx.array]:
    *batch, rows, columns = x.shape
    least = min(rows, columns)
    left, right = (rows, columns) if full_matrices else (least, least)
    return (
        mx.broadcast_to(mx.eye(rows, left), (*batch, rows, left)),
        mx.zeros((*batch, least)),
        mx.broadcast_to(mx.eye(right, columns), (*batch, right, columns)),
    )


def singular_values(x: mx.array) -> mx.array:
    """Return the singular values of matrices, largest first, as ``torch.linalg.svdvals``."""
    if x.size == 0:
        return mx.zeros((*x.shape[:-2], min(x.shape[-2:])))
    values: mx.array = mx.linalg.svd(x, compute_uv=False, stream=mx.cpu)  # type: ignore[assignment]
    return values


def pseudo_inverse(
    x: mx.array,
    absolute: mx.array | None = None,
    relative: mx.array | None = None,
    hermitian: bool = False,
) -> mx.array:
    """Return the pseudo-inverses of matrices, as ``torch.linalg.pinv``.

    Args:
        x: ``(*B, M, N)``, float32.
        absolute: singular values up to it are taken as zero, ``(*B,)`` or a number; default 0.
        relative: singular values up to it times the largest are taken as zero; by default, unless
            ``absolute`` is given and positive, the larger size of the matrix times float32's eps.
        hermitian: whether the matrices are symmetric; then the lower triangle is read.

    Returns:
        ``(*B, N, M)``.
    """
    if x.size == 0:
        return mx.swapaxes(x, -1, -2)
    if hermitian:
        x = mx.tril(x) + mx.swapaxes(mx.tril(x, -1), -1, -2)
    u, s, vh = svd(x, full_matrices=False)
    least = mx.array(0.0) if absolute is None else absolute
    if relative is None:
        default = max(x.shape[-2:]) * mx.finfo(mx.float32).eps
        relative = mx.where(least > 0, 0.0, default)
    bound = mx.maximum(least, relative * s.max(axis=-1))[..., None]
    inverted = mx.where(s > bound, 1 / s, 0)
    return mx.swapaxes(vh, -1, -2) @ (inverted[..., None] * mx.swapaxes(u, -1, -2))


def eigh(x: mx.array, triangle: str = "L") -> tuple[mx.array, mx.array]:
    """Return eigenvalues, ascending, and eigenvectors of symmetric matrices.

    Matches ``torch.linalg.eigh``; LAPACK chooses the signs.

    Args:
        x: ``(*B, N, N)``, float32.
        triangle: which triangle is read, ``"L"`` or ``"U"``.
    """
    if x.size == 0:
        return mx.zeros(x.shape[:-1]), x
    values, vectors = mx.linalg.eigh(x, UPLO=triangle, stream=mx.cpu)
    return values, vectors


def matrix_square_root(x: mx.array) -> mx.array:
    """Return the symmetric square roots of matrices, as ``torch.linalg.matrix_sqrth``.

    Args:
        x: ``(*B, N, N)``, float32; the lower triangle is read. Negative eigenvalues count as zero.
    """
    values, vectors = eigh(x)
    roots = mx.sqrt(mx.maximum(values, 0))[..., None, :]
    return (vectors * roots) @ mx.swapaxes(vectors, -1, -2)


def polar_factors(x: mx.array) -> tuple[mx.array, mx.array]:
    """Return the polar decomposition of matrices, as ``torch.linalg.polar``.

    Args:
        x: ``(*B, M, N)`` with ``M >= N``, float32.

    Returns:
        ``U`` ``(*B, M, N)`` with orthonormal columns, which are unique where ``x`` has full rank,
        and the symmetric ``H`` ``(*B, N, N)``; ``x`` is ``U @ H``.
    """
    u, s, vh = svd(x, full_matrices=False)
    return u @ vh, (mx.swapaxes(vh, -1, -2) * s[..., None, :]) @ vh


def matrix_exponential(x: mx.array) -> mx.array:
    """Return the exponentials of matrices ``(*B, N, N)``, as ``torch.linalg.matrix_exp``.

    The matrix is halved until its norm is below 2; a Taylor polynomial of degree 16 of it is then
    squared as often.
    """
    if x.size == 0:
        return x
    norm = mx.max(mx.sum(mx.abs(x), axis=-2, keepdims=True), axis=-1, keepdims=True)
    halvings = mx.maximum(mx.ceil(mx.log2(mx.maximum(norm, 1e-30))) - 1, 0)
    small = x * mx.power(mx.array(2.0), -halvings)
    one = mx.eye(x.shape[-1])
    y = one + small / 16
    for degree in range(15, 0, -1):
        y = one + (small @ y) / degree
    for step in range(12):
        y = mx.where(step < halvings, y @ y, y)
    return mx.where(halvings > 12, mx.nan, y)
