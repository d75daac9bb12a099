"""Handlers of matrix decompositions, inverses and determinants; MLX computes them on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mlxport.converter.graph.ir.code import OMIT, call
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import cast_to, mlx_dtype
from mlxport.converter.graph.ir.value import Value, logical_order
from mlxport.converter.graph.ops.arguments import node_of, require_floating, unread
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.arrays import linear_algebra

ON_CPU = "float32; computed on the CPU"
SINGULAR = f"{ON_CPU}; a singular matrix raises, whatever PyTorch would do"


def _first(cx: Context, function: Callable[..., Any], *matrices: Value, **kw: Any) -> Value:
    """Emit a function of matrices that gives the first of the node's results."""
    shape, dtype = cx.results[0]
    return cx.function_step(function, matrices[0], *matrices, shape=shape, dtype=dtype, **kw)


def _all(
    cx: Context, function: Callable[..., Any], *matrices: Value, **kw: Any
) -> tuple[Value, ...]:
    """Emit a function of matrices that gives all of the node's results."""
    orders = [logical_order(len(shape)) for shape, _ in cx.results]
    return cx.function_many(function, *matrices, orders=orders, **kw)


def _real(cx: Context, doing: str, *matrices: Value) -> list[Value]:
    require_floating(cx, doing, *matrices)
    if any(x.dtype != torch.float32 for x in matrices):
        raise cx.refuse(f"{doing} of half precision: convert the model in float32")
    return [cx.logical(x) for x in matrices]


def _success(cx: Context, result: int) -> Value:
    """The error codes: none, as MLX raises where PyTorch would count."""
    shape, dtype = cx.results[result]
    return cx.compute(call("mx.zeros", shape, dtype=mlx_dtype(dtype)), shape, dtype)


@op("aten.linalg_inv_ex.default", restrictions=SINGULAR)
def inv_ex(cx: Context, x: Value, *, check_errors: bool = False) -> tuple[Value, ...]:
    """``torch.linalg.inv_ex``, and so ``inv``."""
    (x,) = _real(cx, "an inverse", x)
    return _first(cx, linear_algebra.inverse, x), _success(cx, 1)


@op("aten.inverse.default", restrictions=SINGULAR)
def inverse(cx: Context, x: Value) -> Value:
    """``torch.inverse``."""
    return _first(cx, linear_algebra.inverse, *_real(cx, "an inverse", x))


@op("aten._linalg_solve_ex.default", restrictions=SINGULAR)
def solve_ex(
    cx: Context, a: Value, b: Value, *, left: bool = True, check_errors: bool = False
) -> tuple[Value, ...]:
    """``torch.linalg.solve`` with the matrix on the left."""
    if not left:
        raise cx.refuse("linalg.solve with left=False: transpose both sides")
    a, b = _real(cx, "linalg.solve", a, b)
    return _first(cx, linear_algebra.solve, a, b), *unread(cx, 1, "linalg.solve")


@op("aten._linalg_det.default", restrictions=ON_CPU)
def det(cx: Context, x: Value) -> tuple[Value, ...]:
    """``torch.linalg.det``."""
    return _first(cx, linear_algebra.determinant, *_real(cx, "a determinant", x)), *unread(
        cx, 1, "linalg.det"
    )


@op("aten._linalg_slogdet.default", restrictions=ON_CPU)
def slogdet(cx: Context, x: Value) -> tuple[Value, ...]:
    """``torch.linalg.slogdet``."""
    (x,) = _real(cx, "a determinant", x)
    rest = unread(cx, 2, "linalg.slogdet")
    return *_all(cx.giving(cx.results[:2]), linear_algebra.log_determinant, x), *rest


@op("aten.linalg_cholesky_ex.default", restrictions=f"{ON_CPU}; NaN where PyTorch raises")
def cholesky_ex(
    cx: Context, x: Value, *, upper: bool = False, check_errors: bool = False
) -> tuple[Value, ...]:
    """``torch.linalg.cholesky_ex``, and so ``cholesky``."""
    (x,) = _real(cx, "a Cholesky factor", x)
    return _first(cx, linear_algebra.cholesky, x, upper=upper or OMIT), *unread(
        cx, 1, "linalg.cholesky_ex"
    )


@op("aten.cholesky.default", restrictions=f"{ON_CPU}; NaN where PyTorch raises")
def cholesky(cx: Context, x: Value, upper: bool = False) -> Value:
    """``torch.cholesky``."""
    return _first(
        cx, linear_algebra.cholesky, *_real(cx, "a Cholesky factor", x), upper=upper or OMIT
    )


@op("aten.cholesky_inverse.default", restrictions=SINGULAR)
def cholesky_inverse(cx: Context, x: Value, upper: bool = False) -> Value:
    """``torch.cholesky_inverse``."""
    return _first(
        cx, linear_algebra.cholesky_inverse, *_real(cx, "an inverse", x), upper=upper or OMIT
    )


@op("aten.cholesky_solve.default", restrictions=SINGULAR)
def cholesky_solve(cx: Context, b: Value, factor: Value, upper: bool = False) -> Value:
    """``torch.cholesky_solve``."""
    b, factor = _real(cx, "cholesky_solve", b, factor)
    return _first(cx, linear_algebra.cholesky_solve, b, factor, upper=upper or OMIT)


@op("aten.linalg_solve_triangular.default", restrictions=SINGULAR)
def solve_triangular(
    cx: Context, a: Value, b: Value, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Value:
    """``torch.linalg.solve_triangular``."""
    a, b = _real(cx, "solve_triangular", a, b)
    settings: dict[str, Any] = {
        "left": OMIT if left else False,
        "unitriangular": unitriangular or OMIT,
    }
    return _first(cx, linear_algebra.solve_triangular, a, b, upper=upper, **settings)


@op("aten.linalg_qr.default", restrictions=f"mode 'reduced', or 'complete' of wide; {ON_CPU}")
def qr(cx: Context, x: Value, mode: str = "reduced") -> tuple[Value, ...]:
    """``torch.linalg.qr``."""
    *_, rows, columns = x.shape
    if mode == "r" or (mode == "complete" and rows > columns):
        raise cx.refuse(f"linalg.qr with mode={mode!r}: MLX computes the reduced one only")
    return _all(cx, linear_algebra.qr, *_real(cx, "linalg.qr", x))


@op("aten._linalg_svd.default", restrictions=f"of matrices with elements; {ON_CPU}")
def svd(
    cx: Context,
    x: Value,
    full_matrices: bool = False,
    compute_uv: bool = True,
    *,
    driver: str | None = None,
) -> tuple[Value, ...]:
    """``torch.linalg.svd`` and ``svdvals``."""
    if 0 in x.shape:
        raise cx.refuse(f"singular values of a matrix of shape {tuple(x.shape)}")
    (x,) = _real(cx, "linalg.svd", x)
    if compute_uv:
        return _all(cx, linear_algebra.svd, x, full_matrices=OMIT if full_matrices else False)
    users = {user.args[1] for user in node_of(cx).users}
    if users - {1}:
        raise cx.refuse("linalg.svd without its vectors, of which the vectors are read")
    first, _, last = (Value(s, d, logical_order(len(s)), cx.name) for s, d in cx.results)
    shape, dtype = cx.results[1]
    values = cx.function_step(linear_algebra.singular_values, x, x, shape=shape, dtype=dtype)
    return first, values, last


@op("aten.linalg_pinv.atol_rtol_tensor", restrictions=ON_CPU)
def pinv(
    cx: Context,
    x: Value,
    *,
    atol: Value | None = None,
    rtol: Value | None = None,
    hermitian: bool = False,
) -> Value:
    """``torch.linalg.pinv``."""
    (x,) = _real(cx, "linalg.pinv", x)
    bounds: dict[str, Any] = {
        "absolute": OMIT if atol is None else _float32(atol),
        "relative": OMIT if rtol is None else _float32(rtol),
        "hermitian": hermitian or OMIT,
    }
    return _first(cx, linear_algebra.pseudo_inverse, x, **bounds)


def _float32(bound: Value) -> Any:
    return cast_to(bound, torch.float32)


@op("aten._linalg_eigh.default", restrictions=ON_CPU)
def eigh(cx: Context, x: Value, triangle: str = "L", compute_v: bool = True) -> tuple[Value, ...]:
    """``torch.linalg.eigh`` and ``eigvalsh``."""
    (x,) = _real(cx, "linalg.eigh", x)
    given = OMIT if triangle.upper() == "L" else "U"
    if compute_v:
        return _all(cx, linear_algebra.eigh, x, triangle=given)
    rest = unread(cx, 1, "linalg.eigvalsh")
    shape, dtype = cx.results[0]
    both = cx.calling(linear_algebra.eigh, x, triangle=given)
    return cx.step("both[0]", x, shape=shape, dtype=dtype, both=both), *rest


@op("aten.linalg_lu_factor_ex.default", restrictions=f"of matrices with elements; {ON_CPU}")
def lu_factor_ex(
    cx: Context, x: Value, *, pivot: bool = True, check_errors: bool = False
) -> tuple[Value, ...]:
    """``torch.linalg.lu_factor_ex`` with pivoting."""
    if not pivot or 0 in x.shape:
        raise cx.refuse("an LU decomposition without pivots, or of a matrix without elements")
    (x,) = _real(cx, "an LU decomposition", x)
    rest = unread(cx, 2, "linalg.lu_factor_ex")
    return *_all(cx.giving(cx.results[:2]), linear_algebra.lu_factor, x), *rest


@op("aten.linalg_matrix_exp.default", restrictions="norms up to 2048: NaN beyond; float32")
def matrix_exp(cx: Context, x: Value) -> Value:
    """``torch.linalg.matrix_exp``."""
    return _first(cx, linear_algebra.matrix_exponential, *_real(cx, "a matrix exponential", x))


@op("aten.linalg_householder_product.default", restrictions="floating-point dtypes only")
def householder_product(cx: Context, x: Value, scales: Value) -> Value:
    """``torch.linalg.householder_product``."""
    x, scales = _real(cx, "a product of reflections", x, scales)
    return _first(cx, linear_algebra.householder_product, x, scales)


@op("aten._linalg_check_errors.default", restrictions="the check itself is left out")
def check_errors(cx: Context, *_: Any, **__: Any) -> None:
    """Nothing: MLX raises by itself, or the values are NaN."""
