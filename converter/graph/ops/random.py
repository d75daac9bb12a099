"""Handlers of random numbers by distribution: PyTorch's distributions, MLX's generator.

Every draw is recorded with the order its array is stored in, so that parity can put PyTorch's
numbers in its place (``parity/run/replay_draws.py``).
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
class DrawLayout:
    """The array that a draw fills.

    Attributes:
        shape: the logical shape.
        stored: the expression of the shape as stored.
        order: the axis order it is stored in.
    """

    shape: tuple[Any, ...]
    stored: Any
    order: Order


def layout_like(x: Value) -> DrawLayout:
    """Return the layout of another array, whose values the draw depends on."""
    return DrawLayout(x.shape, ast.Attribute(x.to_ast(), "shape"), x.order)


def draw_of_size(
    cx: Context, size: Sequence[Any], draw_into: Callable[[DrawLayout], Value]
) -> Value:
    """Draw an array of a size, stored as its consumers want it.

    Args:
        cx: the lowering.
        size: the logical shape.
        draw_into: emits the draw of an array of a layout.
    """

    def stored(order: Order) -> Value:
        return draw_into(DrawLayout(tuple(size), tuple(size[axis] for axis in order), order))

    return cx.in_any_order(stored)


def draw_like(cx: Context, x: Value, draw_into: Callable[[DrawLayout], Value]) -> Value:
    """Draw an array of another's shape, without that array where only its shape is needed.

    Args:
        cx: the lowering.
        x: the other array.
        draw_into: emits the draw of an array of a layout.
    """
    function, arguments = _constructor(cx, x)
    if function in ("zeros_like", "ones_like"):
        return draw_into(DrawLayout(x.shape, ast.Attribute(arguments[0], "shape"), x.order))
    if function in ("zeros", "ones", "full"):
        if all(isinstance(size, int) for size in x.shape):
            return draw_of_size(cx, x.shape, draw_into)
        return draw_into(DrawLayout(x.shape, arguments[0], x.order))
    return draw_into(layout_like(x))


def _constructor(cx: Context, x: Value) -> tuple[str, Sequence[ast.expr]]:
    """Return the function of MLX whose call gives an array, casts aside, and its arguments."""
    code = cx.body.expression_of(x) if x.code is None else None
    while isinstance(code, ast.Call) and isinstance(code.func, ast.Attribute):
        of, name = code.func.value, code.func.attr
        if isinstance(of, ast.Name) and of.id == "mx":
            return name, code.args
        code = of if name == "astype" else None
    return "", ()


def draw(cx: Context, kind: str, code: ast.expr, layout: DrawLayout, dtype: torch.dtype) -> Value:
    """Emit a draw and record it.

    Args:
        cx: the lowering.
        kind: the function of ``mx.random`` that makes it.
        code: the call of it.
        layout: what it fills.
        dtype: what MLX gives.
    """
    value = cx.compute(code, layout.shape, dtype, layout.order)
    cx.statements[-1].draws = True
    cx.model.draws.append(DrawRecord(kind, layouts([value])[0]))
    return value


def _unless_default(dtype: torch.dtype) -> Any:
    mlx = mlx_dtype(dtype)
    return OMIT if dtype == torch.float32 else mlx


def require_global(cx: Context, generator: Any) -> None:
    """Refuse a draw from a ``torch.Generator``: MLX has one generator for all draws.

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


def _normal(cx: Context, layout: DrawLayout, mean: Any = 0, std: Any = 1) -> Value:
    loc = OMIT if not isinstance(mean, Value) and mean == 0 else mean
    scale = OMIT if not isinstance(std, Value) and std == 1 else std
    dtype = _unless_default(cx.dtype)
    code = call("mx.random.normal", layout.stored, dtype=dtype, loc=loc, scale=scale)
    return draw(cx, "normal", code, layout, cx.dtype)


@op("aten.randn.default", "aten.randn.generator", restrictions=FLOATING)
def randn(cx: Context, size: Sequence[Any], *, generator: Any = None, **_: Any) -> Value:
    """Numbers of mean 0 and deviation 1."""
    _require_floating(cx, generator)
    return draw_of_size(cx, size, lambda layout: _normal(cx, layout))


@op("aten.randn_like.default", "aten.randn_like.generator", restrictions=FLOATING)
def randn_like(cx: Context, x: Value, *, generator: Any = None, **_: Any) -> Value:
    """Numbers of mean 0 and deviation 1, in the shape of another array."""
    _require_floating(cx, generator)
    return draw_like(cx, x, lambda layout: _normal(cx, layout))


@op("aten.normal_functional.default", restrictions=FLOATING)
def normal_functional(
    cx: Context, x: Value, mean: float = 0.0, std: float = 1.0, *, generator: Any = None
) -> Value:
    """``x.normal_(mean, std)``."""
    _require_floating(cx, generator)
    return draw_like(cx, x, lambda layout: _normal(cx, layout, mean, std))


@op("aten.normal.float_float", restrictions=FLOATING)
def normal_numbers(
    cx: Context, mean: float, std: float, size: Sequence[Any], *, generator: Any = None, **_: Any
) -> Value:
    """Numbers of one mean and one deviation."""
    _require_floating(cx, generator)
    return draw_of_size(cx, size, lambda layout: _normal(cx, layout, mean, std))


@op("aten.normal.Tensor_float", restrictions=FLOATING)
def normal_means(cx: Context, mean: Value, std: float = 1.0, *, generator: Any = None) -> Value:
    """Numbers with a mean for each."""
    _require_floating(cx, generator)
    return _normal(cx, layout_like(mean), mean, std)


@op("aten.normal.float_Tensor", restrictions=FLOATING)
def normal_deviations(cx: Context, mean: float, std: Value, *, generator: Any = None) -> Value:
    """Numbers with a deviation for each."""
    _require_floating(cx, generator)
    return _normal(cx, layout_like(std), mean, std)


@op("aten.normal.Tensor_Tensor", restrictions=FLOATING)
def normal(cx: Context, mean: Value, std: Value, *, generator: Any = None) -> Value:
    """Numbers with a mean and a deviation for each."""
    _require_floating(cx, generator)
    (loc, scale), order = align(cx, mean, std)
    full = next((v for v in (loc, scale) if v.shape == cx.shape), None)
    stored = tuple(cx.shape[axis] for axis in order)
    layout = DrawLayout(cx.shape, stored, order) if full is None else layout_like(full)
    return _normal(cx, layout, loc, scale)


# -- uniform -------------------------------------------------------------------------------------


def _uniform(
    cx: Context, layout: DrawLayout, low: Any = 0, high: Any = 1, dtype: torch.dtype | None = None
) -> Value:
    dtype = dtype or cx.dtype
    bounds = () if (low, high) == (0, 1) else (low, high)
    code = call("mx.random.uniform", *bounds, shape=layout.stored, dtype=_unless_default(dtype))
    return draw(cx, "uniform", code, layout, dtype)


@op("aten.rand.default", "aten.rand.generator", restrictions=FLOATING)
def rand(cx: Context, size: Sequence[Any], *, generator: Any = None, **_: Any) -> Value:
    """Numbers from 0 up to but without 1."""
    _require_floating(cx, generator)
    return draw_of_size(cx, size, lambda layout: _uniform(cx, layout))


@op("aten.rand_like.default", "aten.rand_like.generator", restrictions=FLOATING)
def rand_like(cx: Context, x: Value, *, generator: Any = None, **_: Any) -> Value:
    """Numbers from 0 up to but without 1, in the shape of another array."""
    _require_floating(cx, generator)
    return draw_like(cx, x, lambda layout: _uniform(cx, layout))


@op("aten.uniform.default", restrictions=FLOATING)
def uniform(cx: Context, x: Value, low: float = 0.0, high: float = 1.0, **kw: Any) -> Value:
    """``x.uniform_(low, high)``."""
    _require_floating(cx, kw.get("generator"))
    bounds = kw.get("from", low), kw.get("to", high)
    return draw_like(cx, x, lambda layout: _uniform(cx, layout, *bounds))


@op("aten.exponential.default", restrictions=FLOATING)
def exponential(cx: Context, x: Value, lambd: float = 1.0, *, generator: Any = None) -> Value:
    """``x.exponential_(lambd)``, from uniform numbers: MLX has no such generator."""
    _require_floating(cx, generator)
    dtype = torch.float32 if cx.dtype in HALF else cx.dtype

    def by_inversion(layout: DrawLayout) -> Value:
        drawn = _uniform(cx, layout, dtype=dtype)
        if lambd == 1:
            return emit(cx, "-mx.log1p(-u)", dtype, drawn.order, u=drawn)
        return emit(cx, "-mx.log1p(-u) / rate", dtype, drawn.order, u=drawn, rate=float(lambd))

    return draw_like(cx, x, by_inversion)
