"""Handlers of matrix decompositions, inverses and determinants; MLX computes them on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mlxport.converter.graph.ir.code import OMIT, call
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import cast_to, mlx_dtype
from mlxport.converter.graph.ir.value import Value, logical_order
from mlxport.converter.graph.ops.arguments import node_of, reads, require_floating, unread
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.arrays import linear_algebra

ON_CPU = "float32; computed on the CPU"
SINGULAR = f"{ON_CPU}; a singular matrix raises, whatever PyTorch would do"


def first_result(cx: Context, function: Callable[..., Any], *matrices: Value, **kw: Any) -> Value:
    """Emit a function of matrices that gives the first of the node's results."""
    shape, dtype = cx.results[0]
    return cx.function_step(function, matrices[0], *matrices, shape=shape, dtype=dtype, **kw)


def all_results(
    cx: Context, function: Callable[..., Any], *matrices: Value, **kw: Any
) -> tuple[Value, ...]:
    """Emit a function of matrices that gives all of the node's results."""
    orders = [logical_order(len(shape)) for shape, _ in cx.results]
    return cx.function_many(function, *matrices, orders=orders, **kw)


def float32_matrices(cx: Context, doing: str, *matrices: Value) -> list[Value]:
    """Return matrices in PyTorch's axis order.

    Raises:
        Unsupported: they are not float32, which MLX's decompositions need.
    """
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
    (x,) = float32_matrices(cx, "an inverse", x)
    return first_result(cx, linear_algebra.inverse, x), _success(cx, 1)


@op("aten.inverse.default", restrictions=SINGULAR)
def inverse(cx: Context, x: Value) -> Value:
    """``torch.inverse``."""
    return first_result(cx, linear_algebra.inverse, *float32_matrices(cx, "an inverse", x))


@op("aten._linalg_solve_ex.default", restrictions=SINGULAR)
def solve_ex(
    cx: Context, a: Value, b: Value, *, left: bool = True, check_errors: bool = False
) -> tuple[Value, ...]:
    """``torch.linalg.solve_ex``, and so ``solve``."""
    a, b = float32_matrices(cx, "linalg.solve", a, b)
    result = first_result(cx, linear_algebra.solve, a, b, left=OMIT if left else False)
    return result, *unread(cx, 1, 3, doing="linalg.solve"), _success(cx, 3)


@op("aten._linalg_det.default", restrictions=ON_CPU)
def det(cx: Context, x: Value) -> tuple[Value, ...]:
    """``torch.linalg.det``."""
    (x,) = float32_matrices(cx, "a determinant", x)
    result = first_result(cx, linear_algebra.determinant, x)
    return result, *unread(cx, 1, doing="linalg.det")


@op("aten._linalg_slogdet.default", restrictions=ON_CPU)
def slogdet(cx: Context, x: Value) -> tuple[Value, ...]:
    """``torch.linalg.slogdet``."""
    (x,) = float32_matrices(cx, "a determinant", x)
    rest = unread(cx, 2, doing="linalg.slogdet")
    return *all_results(cx.giving(cx.results[:2]), linear_algebra.log_determinant, x), *rest


@op("aten.linalg_cholesky_ex.default", restrictions=f"{ON_CPU}; NaN where PyTorch raises")
def cholesky_ex(
    cx: Context, x: Value, *, upper: bool = False, check_errors: bool = False
) -> tuple[Value, ...]:
    """``torch.linalg.cholesky_ex``, and so ``cholesky``."""
    (x,) = float32_matrices(cx, "a Cholesky factor", x)
    factor = first_result(cx, linear_algebra.cholesky, x, upper=upper or OMIT)
    if not reads(cx, 1):
        return factor, *unread(cx, 1, doing="linalg.cholesky_ex")
    shape, dtype = cx.results[1]
    codes = cx.function_step(
        linear_algebra.cholesky_codes, x, x, shape=shape, dtype=dtype, upper=upper or OMIT
    )
    return factor, codes


@op("aten.cholesky.default", restrictions=f"{ON_CPU}; NaN where PyTorch raises")
def cholesky(cx: Context, x: Value, upper: bool = False) -> Value:
    """``torch.cholesky``."""
    return first_result(
        cx,
        linear_algebra.cholesky,
        *float32_matrices(cx, "a Cholesky factor", x),
        upper=upper or OMIT,
    )


@op("aten.cholesky_inverse.default", restrictions=SINGULAR)
def cholesky_inverse(cx: Context, x: Value, upper: bool = False) -> Value:
    """``torch.cholesky_inverse``."""
    return first_result(
        cx,
        linear_algebra.cholesky_inverse,
        *float32_matrices(cx, "an inverse", x),
        upper=upper or OMIT,
    )


@op("aten.cholesky_solve.default", restrictions=SINGULAR)
def cholesky_solve(cx: Context, b: Value, factor: Value, upper: bool = False) -> Value:
    """``torch.cholesky_solve``."""
    b, factor = float32_matrices(cx, "cholesky_solve", b, factor)
    return first_result(cx, linear_algebra.cholesky_solve, b, factor, upper=upper or OMIT)


@op("aten.linalg_solve_triangular.default", restrictions=SINGULAR)
def solve_triangular(
    cx: Context, a: Value, b: Value, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Value:
    """``torch.linalg.solve_triangular``."""
    a, b = float32_matrices(cx, "solve_triangular", a, b)
    settings: dict[str, Any] = {
        "left": OMIT if left else False,
        "unitriangular": unitriangular or OMIT,
    }
    return first_result(cx, linear_algebra.solve_triangular, a, b, upper=upper, **settings)


@op("aten.linalg_qr.default", restrictions=f"mode 'reduced', or 'complete' of wide; {ON_CPU}")
def qr(cx: Context, x: Value, mode: str = "reduced") -> tuple[Value, ...]:
    """``torch.linalg.qr``."""
    *_, rows, columns = x.shape
    if mode == "r" or (mode == "complete" and rows > columns):
        raise cx.refuse(f"linalg.qr with mode={mode!r}: MLX computes the reduced one only")
    return all_results(cx, linear_algebra.qr, *float32_matrices(cx, "linalg.qr", x))


@op("aten._linalg_svd.default", restrictions=ON_CPU)
def svd(
    cx: Context,
    x: Value,
    full_matrices: bool = False,
    compute_uv: bool = True,
    *,
    driver: str | None = None,
) -> tuple[Value, ...]:
    """``torch.linalg.svd`` and ``svdvals``."""
    (x,) = float32_matrices(cx, "linalg.svd", x)
    if compute_uv:
        return all_results(
            cx, linear_algebra.svd, x, full_matrices=OMIT if full_matrices else False
        )
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
    (x,) = float32_matrices(cx, "linalg.pinv", x)
    bounds: dict[str, Any] = {
        "absolute": OMIT if atol is None else _float32(atol),
        "relative": OMIT if rtol is None else _float32(rtol),
        "hermitian": hermitian or OMIT,
    }
    return first_result(cx, linear_algebra.pseudo_inverse, x, **bounds)


def _float32(bound: Value) -> Any:
    return cast_to(bound, torch.float32)


@op("aten._linalg_eigh.default", restrictions=ON_CPU)
def eigh(cx: Context, x: Value, triangle: str = "L", compute_v: bool = True) -> tuple[Value, ...]:
    """``torch.linalg.eigh`` and ``eigvalsh``."""
    (x,) = float32_matrices(cx, "linalg.eigh", x)
    given = OMIT if triangle.upper() == "L" else "U"
    if compute_v:
        return all_results(cx, linear_algebra.eigh, x, triangle=given)
    rest = unread(cx, 1, doing="linalg.eigvalsh")
    shape, dtype = cx.results[0]
    both = cx.calling(linear_algebra.eigh, x, triangle=given)
    return cx.step("both[0]", x, shape=shape, dtype=dtype, both=both), *rest


@op("aten.linalg_matrix_sqrth.default", restrictions=ON_CPU)
def matrix_sqrth(cx: Context, x: Value) -> Value:
    """``torch.linalg.matrix_sqrth``, which is new in torch 2.14."""
    return first_result(
        cx, linear_algebra.matrix_square_root, *float32_matrices(cx, "linalg.matrix_sqrth", x)
    )


@op("aten.linalg_polar.default", restrictions=ON_CPU)
def polar_factors(cx: Context, x: Value) -> tuple[Value, ...]:
    """``torch.linalg.polar``, which is new in torch 2.14."""
    return all_results(cx, linear_algebra.polar_factors, *float32_matrices(cx, "linalg.polar", x))


@op("aten.linalg_matrix_exp.default", restrictions="norms up to 2048: NaN beyond; float32")
def matrix_exp(cx: Context, x: Value) -> Value:
    """``torch.linalg.matrix_exp``."""
    return first_result(
        cx, linear_algebra.matrix_exponential, *float32_matrices(cx, "a matrix exponential", x)
    )


@op("aten._linalg_check_errors.default", restrictions="the check itself is left out")
def check_errors(cx: Context, *_: Any, **__: Any) -> None:
    """Nothing: MLX raises by itself, or the values are NaN."""
