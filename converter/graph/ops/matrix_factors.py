"""Handlers of LU decompositions and of products of Householder reflections, and their uses."""

from __future__ import annotations

from mlxport.converter.graph.ir.code import OMIT
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.arguments import reads, unread
from mlxport.converter.graph.ops.linear_algebra import (
    ON_CPU,
    SINGULAR,
    all_results,
    first_result,
    float32_matrices,
)
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.arrays import householder, linear_algebra, lu


@op("aten.linalg_lu_factor_ex.default", restrictions=ON_CPU)
def lu_factor_ex(
    cx: Context, x: Value, *, pivot: bool = True, check_errors: bool = False
) -> tuple[Value, ...]:
    """``torch.linalg.lu_factor_ex`` with pivoting."""
    _require_pivots(cx, pivot)
    (x,) = float32_matrices(cx, "an LU decomposition", x)
    packed, pivots = all_results(cx.giving(cx.results[:2]), lu.lu_factor, x)
    if not reads(cx, 2):
        return packed, pivots, *unread(cx, 2, doing="linalg.lu_factor_ex")
    shape, dtype = cx.results[2]
    return packed, pivots, cx.function_step(lu.lu_codes, x, packed, shape=shape, dtype=dtype)


@op("aten.linalg_lu.default", restrictions=ON_CPU)
def linalg_lu(cx: Context, x: Value, *, pivot: bool = True) -> tuple[Value, ...]:
    """``torch.linalg.lu`` with pivoting."""
    _require_pivots(cx, pivot)
    return all_results(cx, lu.lu, *float32_matrices(cx, "an LU decomposition", x))


@op("aten.lu_unpack.default", restrictions="of both")
def lu_unpack(
    cx: Context, packed: Value, pivots: Value, unpack_data: bool = True, unpack_pivots: bool = True
) -> tuple[Value, ...]:
    """``torch.lu_unpack``."""
    if not (unpack_data and unpack_pivots):
        raise cx.refuse("lu_unpack of the data or the pivots alone: unpack both, and read one")
    (packed,) = float32_matrices(cx, "lu_unpack", packed)
    return all_results(cx, lu.lu_unpack, packed, cx.logical(pivots))


@op("aten.linalg_lu_solve.default", restrictions=SINGULAR)
def linalg_lu_solve(
    cx: Context,
    packed: Value,
    pivots: Value,
    b: Value,
    *,
    left: bool = True,
    adjoint: bool = False,
) -> Value:
    """``torch.linalg.lu_solve``."""
    packed, b = float32_matrices(cx, "lu_solve", packed, b)
    given = {"left": OMIT if left else False, "adjoint": adjoint or OMIT}
    return first_result(cx, lu.lu_solve, packed, cx.logical(pivots), b, **given)


@op("aten.lu_solve.default", restrictions=SINGULAR)
def lu_solve(cx: Context, b: Value, packed: Value, pivots: Value) -> Value:
    """``torch.lu_solve``."""
    return linalg_lu_solve(cx, packed, pivots, b)


@op("aten.triangular_solve.default", restrictions=SINGULAR)
def triangular_solve(
    cx: Context,
    b: Value,
    a: Value,
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
) -> tuple[Value, ...]:
    """``torch.triangular_solve``, which gives the matrices again."""
    again = a
    if again.shape != cx.results[1][0]:
        (again,) = unread(cx, 1, doing="triangular_solve of matrices that are broadcast,")
    a, b = float32_matrices(cx, "triangular_solve", a, b)
    solved = first_result(
        cx,
        linear_algebra.solve_triangular,
        cx.step("a.swapaxes(-1, -2)", a, a=a) if transpose else a,
        b,
        upper=upper != transpose,
        unitriangular=unitriangular or OMIT,
    )
    return solved, again


@op("aten.geqrf.default", restrictions=ON_CPU)
def geqrf(cx: Context, x: Value) -> tuple[Value, ...]:
    """``torch.geqrf``."""
    return all_results(cx, householder.geqrf, *float32_matrices(cx, "geqrf", x))


@op("aten.ormqr.default", restrictions="floating-point dtypes only")
def ormqr(
    cx: Context, x: Value, scales: Value, y: Value, left: bool = True, transpose: bool = False
) -> Value:
    """``torch.ormqr``."""
    x, scales, y = float32_matrices(cx, "ormqr", x, scales, y)
    given = {"left": OMIT if left else False, "transpose": transpose or OMIT}
    return first_result(cx, householder.reflect, x, scales, y, **given)


@op("aten.linalg_householder_product.default", restrictions="floating-point dtypes only")
def householder_product(cx: Context, x: Value, scales: Value) -> Value:
    """``torch.linalg.householder_product``."""
    x, scales = float32_matrices(cx, "a product of reflections", x, scales)
    return first_result(cx, householder.householder_product, x, scales)


def _require_pivots(cx: Context, pivot: bool) -> None:
    if not pivot:
        raise cx.refuse("an LU decomposition without pivots: MLX has none")
