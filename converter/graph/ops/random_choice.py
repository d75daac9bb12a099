"""Handlers of random integers, permutations and choices by probability: MLX's generator."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import torch

from mlxport.converter.graph.ir.code import OMIT, call, expression
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import Number, emit, mlx_dtype, widened
from mlxport.converter.graph.ir.value import Scalar, Value, logical_order
from mlxport.converter.graph.ops.arguments import require_floating
from mlxport.converter.graph.ops.broadcast import align
from mlxport.converter.graph.ops.dropout import active
from mlxport.converter.graph.ops.random import (
    DRAWN,
    DrawLayout,
    draw,
    draw_like,
    draw_of_size,
    layout_like,
    require_global,
)
from mlxport.converter.graph.ops.registry import op

BOUNDED = f"{DRAWN}; bounds within 2**24, as MLX draws integers by float32"

_WIDEST = 2**24


def _randint(
    cx: Context, layout: DrawLayout, low: int | Scalar, high: int | Scalar, generator: Any = None
) -> Value:
    require_global(cx, generator)
    for bound in (low, high):
        if isinstance(bound, int) and abs(bound) > _WIDEST:
            raise cx.refuse(
                f"random integers from {low} to {high}: MLX draws them by float32, which does not "
                "reach them all"
            )
    drawn = torch.int32 if cx.dtype.is_floating_point or cx.dtype == torch.bool else cx.dtype
    dtype = OMIT if drawn == torch.int32 else mlx_dtype(drawn)
    code = call("mx.random.randint", low, high, layout.stored, dtype=dtype)
    value = draw(cx, "randint", code, layout, drawn)
    return value if drawn == cx.dtype else emit(cx, "i", drawn, value.order, i=value)


@op("aten.randint.default", "aten.randint.generator", restrictions=BOUNDED)
def randint(
    cx: Context, high: int | Scalar, size: Sequence[Any], *, generator: Any = None, **_: Any
) -> Value:
    """Integers from 0 up to but without ``high``."""
    return draw_of_size(cx, size, lambda layout: _randint(cx, layout, 0, high, generator))


@op("aten.randint.low", "aten.randint.low_generator", restrictions=BOUNDED)
def randint_low(
    cx: Context,
    low: int | Scalar,
    high: int | Scalar,
    size: Sequence[Any],
    *,
    generator: Any = None,
    **_: Any,
) -> Value:
    """Integers from ``low`` up to but without ``high``."""
    return draw_of_size(cx, size, lambda layout: _randint(cx, layout, low, high, generator))


@op("aten.randint_like.default", "aten.random.to", restrictions=BOUNDED)
def randint_like(
    cx: Context, x: Value, high: int | Scalar, *, generator: Any = None, **_: Any
) -> Value:
    """Integers from 0 up to but without ``high``, in the shape of another array."""
    return draw_like(cx, x, lambda layout: _randint(cx, layout, 0, high, generator))


@op("aten.randint_like.low_dtype", restrictions=BOUNDED)
def randint_like_low(
    cx: Context, x: Value, low: int | Scalar, high: int | Scalar, **_: Any
) -> Value:
    """Integers from ``low`` up to but without ``high``, in the shape of another array."""
    return draw_like(cx, x, lambda layout: _randint(cx, layout, low, high))


@op("aten.randperm.default", restrictions=DRAWN)
def randperm(cx: Context, n: int | Scalar, **_: Any) -> Value:
    """The integers from 0 up to but without ``n``, shuffled."""
    layout = DrawLayout(cx.shape, (n,), (0,))
    drawn = draw(cx, "permutation", call("mx.random.permutation", n), layout, torch.uint32)
    return emit(cx, "p", torch.uint32, None, p=drawn)


# -- by probabilities ----------------------------------------------------------------------------


def _bernoulli(cx: Context, code: ast.expr, layout: DrawLayout, generator: Any) -> Value:
    require_global(cx, generator)
    drawn = draw(cx, "bernoulli", code, layout, torch.bool)
    return drawn if cx.dtype == torch.bool else emit(cx, "b", torch.bool, drawn.order, b=drawn)


def _from_dropout(cx: Context) -> bool:
    """Whether the node is what torch decomposes an active dropout of whole channels into."""
    sources = cx.node.fx.meta.get("from_node", ()) if cx.node.fx is not None else ()
    return any("dropout" in str(source.target) for source in sources)


@op("aten.bernoulli.default", restrictions=DRAWN)
def bernoulli(cx: Context, p: Value, *, generator: Any = None) -> Value:
    """1 with the probability given for each element, else 0."""
    return _bernoulli(cx, call("mx.random.bernoulli", p), layout_like(p), generator)


@op("aten.bernoulli.p", restrictions=DRAWN)
def bernoulli_number(cx: Context, x: Value, p: Number = 0.5, *, generator: Any = None) -> Value:
    """1 with one probability for all, else 0, in the shape of another array."""
    if _from_dropout(cx):
        raise active(cx, 1 - p)

    def drawn(layout: DrawLayout) -> Value:
        return _bernoulli(cx, call("mx.random.bernoulli", p, layout.stored), layout, generator)

    return draw_like(cx, x, drawn)


@op("aten.bernoulli.Tensor", restrictions=DRAWN)
def bernoulli_tensor(cx: Context, x: Value, p: Value, *, generator: Any = None) -> Value:
    """``x.bernoulli_(p)``."""
    (fitted, probability), _ = align(cx, x, p)
    layout = layout_like(fitted)
    shape = () if probability.shape == x.shape else (layout.stored,)
    code = call("mx.random.bernoulli", probability, *shape)
    return _bernoulli(cx, code, layout, generator)


@op("aten.multinomial.default", restrictions=DRAWN)
def multinomial(
    cx: Context,
    weights: Value,
    num_samples: int | Scalar,
    replacement: bool = False,
    *,
    generator: Any = None,
) -> Value:
    """Indices drawn by weight; without replacement, the largest of the disturbed logarithms."""
    require_floating(cx, "drawing by weights", weights)
    require_global(cx, generator)
    p = cx.logical(weights)
    logits = expression("mx.log(p)", {"p": widened(p)})
    if replacement or num_samples == 1:
        layout = DrawLayout(cx.shape, cx.shape, logical_order(p.ndim))
        code = call("mx.random.categorical", logits, num_samples=num_samples)
        return emit(
            cx, "i", torch.uint32, None, i=draw(cx, "categorical", code, layout, torch.uint32)
        )
    layout = layout_like(p)
    noise = draw(cx, "gumbel", call("mx.random.gumbel", layout.stored), layout, torch.float32)
    template = "mx.argsort(-(logits + noise), axis=-1)[..., :n]"
    return emit(cx, template, torch.uint32, None, logits=logits, noise=noise, n=num_samples)
