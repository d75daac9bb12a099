"""Handlers of products of matrices and vectors, and of what is built on them.

MLX multiplies floating-point matrices only: products of integers are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

from mlxport.converter.graph.ir.code import OMIT, expression
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import emit_function, mlx_promoted
from mlxport.converter.graph.ir.transposes import is_available_in
from mlxport.converter.graph.ir.value import Order, Value, logical_order, without_axes
from mlxport.converter.graph.ops.arguments import FLOATING_ONLY, require_floating
from mlxport.converter.graph.ops.broadcast import align
from mlxport.converter.graph.ops.creation import filled
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.arrays import distance, reduction


@op("aten.matmul.default", "aten.linalg_matmul.default", restrictions=FLOATING_ONLY)
@op("aten.mm.default", "aten.bmm.default", "aten.mv.default", restrictions=FLOATING_ONLY)
@op("aten.dot.default", "aten.vdot.default", restrictions=FLOATING_ONLY)
def matmul(cx: Context, a: Value, b: Value) -> Value:
    """``torch.matmul``: 1-D operands are vectors, axes before the last two broadcast."""
    require_floating(cx, "matrix product", a, b)
    a, b, order = _aligned(cx, a, b)
    return cx.emit("a @ b", a=a, b=b, order=order)


@op("aten.outer.default", "aten.ger.default")
def outer(cx: Context, a: Value, b: Value) -> Value:
    """Outer product of two vectors, which need not have one dtype."""
    if a.dtype != b.dtype:
        raise cx.refuse(f"outer product of {a.dtype} and {b.dtype}: cast one to the other first")
    return cx.emit("mx.outer(a, b)", a=a, b=b)


@op("aten.linear.default", restrictions=FLOATING_ONLY)
def linear(cx: Context, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """``torch.nn.functional.linear``: weight ``(out, in)``, or ``(in,)`` for a single output."""
    require_floating(cx, "matrix product", x, weight, bias)
    x, weight = cx.last(x), cx.logical(weight)
    if weight.ndim == 1:
        template = "x @ weight" if bias is None else "x @ weight + bias"
        operands = {"x": x, "weight": weight, **({} if bias is None else {"bias": bias})}
        return cx.emit(template, **operands, order=without_axes(x.order, [x.ndim - 1]))
    if bias is None:
        return cx.emit("x @ weight.T", x=x, weight=weight, order=x.order)
    return cx.emit("mx.addmm(bias, x, weight.T)", x=x, weight=weight, bias=bias, order=x.order)


@op("aten.addmm.default", "aten.baddbmm.default", "aten.addmv.default", restrictions=FLOATING_ONLY)
def addmm(
    cx: Context, bias: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1
) -> Value:
    """``beta * bias + alpha * (a @ b)``; a ``beta`` of zero leaves the bias out, NaN and all."""
    require_floating(cx, "matrix product", bias, a, b)
    a, b = cx.logical(a), cx.logical(b)
    if beta == 0:
        return cx.emit("a @ b" if alpha == 1 else "alpha * (a @ b)", a=a, b=b, **_scale(alpha))
    if b.ndim == 1:
        left = "bias" if beta == 1 else "beta * bias"
        right = "a @ b" if alpha == 1 else "alpha * (a @ b)"
        scales = {**_scale(beta, "beta"), **_scale(alpha)}
        return cx.emit(f"{left} + {right}", bias=bias, a=a, b=b, **scales)
    return cx.emit(
        "mx.addmm(bias, a, b, alpha=alpha, beta=beta)",
        bias=cx.logical(bias),
        a=a,
        b=b,
        alpha=OMIT if alpha == 1 else float(alpha),
        beta=OMIT if beta == 1 else float(beta),
    )


@op("aten.addbmm.default", restrictions=FLOATING_ONLY)
def addbmm(
    cx: Context, bias: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1
) -> Value:
    """``beta * bias`` and ``alpha`` times the products of a batch, summed over it."""
    require_floating(cx, "matrix product", bias, a, b)
    operands: dict[str, Any] = {"a": cx.logical(a), "b": cx.logical(b), **_scale(alpha)}
    product = 'mx.einsum("bij,bjk->ik", a, b)'
    product = product if alpha == 1 else f"alpha * {product}"
    if beta == 0:
        return cx.emit(product, **operands)
    left = "bias" if beta == 1 else "beta * bias"
    operands |= {"bias": cx.logical(bias), **_scale(beta, "beta")}
    return cx.emit(f"{left} + {product}", **operands)


@op("aten.dist.default", restrictions=FLOATING_ONLY)
def dist(cx: Context, x: Value, y: Value, p: float = 2) -> Value:
    """``torch.dist``: the norm of the difference of two arrays, broadcast together."""
    require_floating(cx, "a distance", x, y)
    (x, y), _ = align(cx, x, y)
    difference = expression("x - y", {"x": x, "y": y})
    return emit_function(cx, reduction.norm, mlx_promoted(x, y), None, difference, float(p))


@op("aten._pdist_forward.default", restrictions=FLOATING_ONLY)
def pdist(cx: Context, x: Value, p: float = 2) -> Value:
    """``torch.nn.functional.pdist``: distances between every two rows, each pair once."""
    require_floating(cx, "a distance", x)
    power = OMIT if p == 2 else float(p)
    return cx.function(distance.pdist, cx.logical(x), p=power)


@op("aten.einsum.default", restrictions=FLOATING_ONLY)
def einsum(cx: Context, equation: str, operands: Sequence[Value], *, path: Any = None) -> Value:
    """``torch.einsum``; the letters follow the axes to where they are stored."""
    require_floating(cx, "matrix product", *operands)
    if any(0 in x.shape for x in operands):  # sums of nothing; MLX 0.32.4 rejects some of them
        return filled(cx, 0, cx.shape)
    inputs, output = _subscripts(equation, [x.ndim for x in operands])
    stored = [
        "".join(letters[axis] for axis in x.order)
        for letters, x in zip(inputs, operands, strict=True)
    ]
    names: dict[str, Any] = {f"x{i}": x for i, x in enumerate(operands)}
    call = f"mx.einsum(equation, {', '.join(names)})"

    def ordered(order: Order) -> Value:
        text = f"{','.join(stored)}->{''.join(output[axis] for axis in order)}"
        return cx.emit(call, equation=text, order=order, **names)

    return cx.in_any_order(ordered)


@op("aten.bilinear.default", restrictions=FLOATING_ONLY)
def bilinear(cx: Context, a: Value, b: Value, weight: Value, bias: Value | None = None) -> Value:
    """``torch.nn.functional.bilinear``: weight ``(out, in1, in2)``."""
    require_floating(cx, "matrix product", a, b, weight, bias)
    rest = ascii_letters[3 : 2 + a.ndim]
    text = f"{rest}a,cab,{rest}b->{rest}c"
    operands: dict[str, Any] = {"a": cx.logical(a), "b": cx.logical(b), "w": cx.logical(weight)}
    if bias is None:
        return cx.emit("mx.einsum(text, a, w, b)", text=text, **operands)
    return cx.emit("mx.einsum(text, a, w, b) + bias", text=text, bias=bias, **operands)


@op("aten.cdist.default", "aten._cdist_forward.default")
def cdist(
    cx: Context, a: Value, b: Value, p: float = 2.0, compute_mode: int | None = None
) -> Value:
    """``torch.cdist``; differences are always taken element by element, never through a product."""
    p = OMIT if p == 2 else p  # type: ignore[assignment]
    return cx.function(distance.cdist, cx.logical(a), cx.logical(b), p=p)


def _aligned(cx: Context, a: Value, b: Value) -> tuple[Value, Value, Order]:
    """Store what is contracted last, batch axes in one order; return the product's order too."""
    if b.ndim == 1:
        a = cx.last(a)
        return a, b, without_axes(a.order, [a.ndim - 1])
    if a.ndim == 1:
        b = cx.last(b, 2)
        return a, b, without_axes(b.order, [b.ndim - 2])
    if b.ndim == 2:
        a = cx.last(a)
        return a, cx.logical(b), a.order
    if a.ndim != b.ndim:
        return cx.logical(a), cx.logical(b), logical_order(max(a.ndim, b.ndim))
    order = _batched(cx, a, b)
    return cx.arrange(a, order), cx.arrange(b, order), order


def _batched(cx: Context, a: Value, b: Value) -> Order:
    """Return the order that moves the fewest of two operands: batch axes first, matrices last."""
    matrix = (a.ndim - 2, a.ndim - 1)
    orders = [logical_order(a.ndim)]
    orders += [(*(axis for axis in x.order if axis not in matrix), *matrix) for x in (a, b)]
    return min(
        orders,
        key=lambda order: sum(not is_available_in(x, order) for x in (a, b) if x.has_fixed_order),
    )


def _subscripts(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Letters of every operand and of the result, ellipses spelt out and the result explicit."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    hidden = [
        rank - len(letters.replace("...", "")) if "..." in letters else 0
        for letters, rank in zip(inputs, ranks, strict=True)
    ]
    fresh = "".join(c for c in ascii_letters if c not in equation)[: max(hidden)]
    inputs = [
        letters.replace("...", fresh[len(fresh) - count :])
        for letters, count in zip(inputs, hidden, strict=True)
    ]
    if arrow:
        return inputs, right.replace("...", fresh)
    named = left.replace(",", "").replace(".", "")
    return inputs, fresh + "".join(sorted(c for c in set(named) if named.count(c) == 1))


def _scale(factor: float, name: str = "alpha") -> dict[str, Any]:
    return {} if factor == 1 else {name: float(factor)}
