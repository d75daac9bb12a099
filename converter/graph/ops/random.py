"""Random numbers in a range, from MLX's own generator: PyTorch's distributions, other numbers.

Every draw is recorded with the order its array is stored in, so that parity can put PyTorch's
numbers in its place (``parity/replay.py``).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlxport.converter.graph.ir.code import OMIT, call
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import HALF, emit, mlx_dtype
from mlxport.converter.graph.ir.nodes import layouts
from mlxport.converter.graph.ir.value import Order, Value
from mlxport.converter.graph.ops.broadcast import align
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.plan.record import DrawRecord

DRAWN = "drawn by MLX's generator; replayed in parity"
FLOATING = f"{DRAWN}; floating-point dtypes only"


@dataclass(frozen=True)
class Place:
    """What a draw fills.

    Attributes:
        shape: the logical shape.
        stored: how the shape as stored is written.
        order: the order it is stored in.
    """

    shape: tuple[Any, ...]
    stored: Any
    order: Order


def place_of(x: Value) -> Place:
    """Return the place of another array whose values the draw depends on."""
    return Place(x.shape, ast.Attribute(x.to_ast(), "shape"), x.order)


def fill(cx: Context, size: Sequence[Any], make: Callable[[Place], Value]) -> Value:
    """Draw an array of a size, stored as its consumers want it.

    Args:
        cx: the lowering.
        size: the logical shape.
        make: emits the draw into a place.
    """

    def stored(order: Order) -> Value:
        return make(Place(tuple(size), tuple(size[axis] for axis in order), order))

    return cx.chosen(stored)


def fill_like(cx: Context, x: Value, make: Callable[[Place], Value]) -> Value:
    """Draw an array of another's shape, past arrays that were made for their shape alone.

    Args:
        cx: the lowering.
        x: the other array.
        make: emits the draw into a place.
    """
    made = next(
        (s.code for s in reversed(cx.statements) if s.targets[0].variable == x.variable), None
    )
    while isinstance(made, ast.Call) and _function(made).endswith(".astype"):
        made = made.func.value if isinstance(made.func, ast.Attribute) else None
    if not isinstance(made, ast.Call) or x.code is not None:
        return make(place_of(x))
    if _function(made) in ("mx.zeros_like", "mx.ones_like"):
        return make(Place(x.shape, ast.Attribute(made.args[0], "shape"), x.order))
    if _function(made) in ("mx.zeros", "mx.ones", "mx.full"):
        if all(isinstance(size, int) for size in x.shape):
            return fill(cx, x.shape, make)
        return make(Place(x.shape, made.args[0], x.order))
    return make(place_of(x))


def _function(code: ast.Call) -> str:
    return ast.unparse(code.func)


def draw(cx: Context, kind: str, code: ast.expr, place: Place, dtype: torch.dtype) -> Value:
    """Emit a draw and record it.

    Args:
        cx: the lowering.
        kind: the function of ``mx.random`` that makes it.
        code: the call of it.
        place: what it fills.
        dtype: what MLX gives.
    """
    value = cx.compute(code, place.shape, dtype, place.order)
    cx.statements[-1].draws = True
    cx.draws.append(DrawRecord(kind, layouts([value])[0]))
    return value


def _unless_default(dtype: torch.dtype) -> Any:
    mlx = mlx_dtype(dtype)
    return OMIT if dtype == torch.float32 else mlx


def require_global(cx: Context, generator: Any) -> None:
    """Refuse a draw from a generator of its own.

    Raises:
        Unsupported: there is one.
    """
    if generator is not None:
        raise cx.refuse("numbers from a torch.Generator of its own: MLX has one for all")


def _require_floating(cx: Context, generator: Any) -> None:
    require_global(cx, generator)
    if not cx.dtype.is_floating_point:
        raise cx.refuse(f"random numbers of {cx.dtype}: only floating-point dtypes are supported")


# -- normal --------------------------------------------------------------------------------------


def _normal(cx: Context, place: Place, mean: Any = 0, std: Any = 1) -> Value:
    loc = OMIT if not isinstance(mean, Value) and mean == 0 else mean
    scale = OMIT if not isinstance(std, Value) and std == 1 else std
    dtype = _unless_default(cx.dtype)
    code = call("mx.random.normal", place.stored, dtype=dtype, loc=loc, scale=scale)
    return draw(cx, "normal", code, place, cx.dtype)


@op("aten.randn.default", "aten.randn.generator", restrictions=FLOATING)
def randn(cx: Context, size: Sequence[Any], *, generator: Any = None, **_: Any) -> Value:
    """Numbers of mean 0 and deviation 1."""
    _require_floating(cx, generator)
    return fill(cx, size, lambda place: _normal(cx, place))


@op("aten.randn_like.default", "aten.randn_like.generator", restrictions=FLOATING)
def randn_like(cx: Context, x: Value, *, generator: Any = None, **_: Any) -> Value:
    """Numbers of mean 0 and deviation 1, in the shape of another array."""
    _require_floating(cx, generator)
    return fill_like(cx, x, lambda place: _normal(cx, place))


@op("aten.normal_functional.default", restrictions=FLOATING)
def normal_functional(
    cx: Context, x: Value, mean: float = 0.0, std: float = 1.0, *, generator: Any = None
) -> Value:
    """``x.normal_(mean, std)``."""
    _require_floating(cx, generator)
    return fill_like(cx, x, lambda place: _normal(cx, place, mean, std))


@op("aten.normal.float_float", restrictions=FLOATING)
def normal_numbers(
    cx: Context, mean: float, std: float, size: Sequence[Any], *, generator: Any = None, **_: Any
) -> Value:
    """Numbers of one mean and one deviation."""
    _require_floating(cx, generator)
    return fill(cx, size, lambda place: _normal(cx, place, mean, std))


@op("aten.normal.Tensor_float", restrictions=FLOATING)
def normal_means(cx: Context, mean: Value, std: float = 1.0, *, generator: Any = None) -> Value:
    """Numbers with a mean of their own."""
    _require_floating(cx, generator)
    return _normal(cx, place_of(mean), mean, std)


@op("aten.normal.float_Tensor", restrictions=FLOATING)
def normal_deviations(cx: Context, mean: float, std: Value, *, generator: Any = None) -> Value:
    """Numbers with a deviation of their own."""
    _require_floating(cx, generator)
    return _normal(cx, place_of(std), mean, std)


@op("aten.normal.Tensor_Tensor", restrictions=FLOATING)
def normal(cx: Context, mean: Value, std: Value, *, generator: Any = None) -> Value:
    """Numbers with a mean and a deviation of their own."""
    _require_floating(cx, generator)
    (loc, scale), order = align(cx, mean, std)
    whole = next((v for v in (loc, scale) if v.shape == cx.shape), None)
    stored = tuple(cx.shape[axis] for axis in order)
    place = Place(cx.shape, stored, order) if whole is None else place_of(whole)
    return _normal(cx, place, loc, scale)


# -- uniform -------------------------------------------------------------------------------------


def _uniform(
    cx: Context, place: Place, low: Any = 0, high: Any = 1, dtype: torch.dtype | None = None
) -> Value:
    dtype = dtype or cx.dtype
    bounds = () if (low, high) == (0, 1) else (low, high)
    code = call("mx.random.uniform", *bounds, shape=place.stored, dtype=_unless_default(dtype))
    return draw(cx, "uniform", code, place, dtype)


@op("aten.rand.default", "aten.rand.generator", restrictions=FLOATING)
def rand(cx: Context, size: Sequence[Any], *, generator: Any = None, **_: Any) -> Value:
    """Numbers from 0 up to but without 1."""
    _require_floating(cx, generator)
    return fill(cx, size, lambda place: _uniform(cx, place))


@op("aten.rand_like.default", "aten.rand_like.generator", restrictions=FLOATING)
def rand_like(cx: Context, x: Value, *, generator: Any = None, **_: Any) -> Value:
    """Numbers from 0 up to but without 1, in the shape of another array."""
    _require_floating(cx, generator)
    return fill_like(cx, x, lambda place: _uniform(cx, place))


@op("aten.uniform.default", restrictions=FLOATING)
def uniform(cx: Context, x: Value, low: float = 0.0, high: float = 1.0, **kw: Any) -> Value:
    """``x.uniform_(low, high)``."""
    _require_floating(cx, kw.get("generator"))
    bounds = kw.get("from", low), kw.get("to", high)
    return fill_like(cx, x, lambda place: _uniform(cx, place, *bounds))


@op("aten.exponential.default", restrictions=FLOATING)
def exponential(cx: Context, x: Value, lambd: float = 1.0, *, generator: Any = None) -> Value:
    """``x.exponential_(lambd)``, from uniform numbers: MLX has no such generator."""
    _require_floating(cx, generator)
    dtype = torch.float32 if cx.dtype in HALF else cx.dtype

    def made(place: Place) -> Value:
        drawn = _uniform(cx, place, dtype=dtype)
        if lambd == 1:
            return emit(cx, "-mx.log1p(-u)", dtype, drawn.order, u=drawn)
        return emit(cx, "-mx.log1p(-u) / rate", dtype, drawn.order, u=drawn, rate=float(lambd))

    return fill_like(cx, x, made)
