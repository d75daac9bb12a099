"""Handlers of activations: ``mlx.nn``'s functions, or mlxport's where those are not PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mlxport.converter.graph.ir.code import OMIT
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import HALF, Number, cast_to, emit, is_inexact, literal
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.arguments import FLOATING_ONLY, require_floating
from mlxport.converter.graph.ops.axes import stored_axis
from mlxport.converter.graph.ops.broadcast import align
from mlxport.converter.graph.ops.creation import filled
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.ops.view import by_vectors, reshaped
from mlxport.layers.activation import functions


def _of_mlx(function: str) -> Handler:
    def activation(cx: Context, x: Value) -> Value:
        require_floating(cx, function, x)
        return cx.call(function, x, order=x.order)

    return activation


def _of_layers(function: Callable[..., Any]) -> Handler:
    def activation(cx: Context, x: Value, *settings: Number) -> Value:
        require_floating(cx, function.__name__, x)
        return cx.function(function, x, *settings, order=x.order)

    return activation


for _name, _function in {
    "hardswish": "nn.hardswish",
    "log_sigmoid": "nn.log_sigmoid",
    "mish": "nn.mish",
    "silu": "nn.silu",
}.items():
    op(f"aten.{_name}.default", restrictions=FLOATING_ONLY)(_of_mlx(_function))

_OF_LAYERS: dict[str, Callable[..., Any]] = {
    "celu": functions.celu,
    "elu": functions.elu,
    "hardshrink": functions.hard_shrink,
    "hardsigmoid": functions.hardsigmoid,
    "selu": functions.selu,
    "softshrink": functions.softshrink,
    "threshold": functions.threshold,
}
for _name, _layers_function in _OF_LAYERS.items():
    op(f"aten.{_name}.default", restrictions=FLOATING_ONLY)(_of_layers(_layers_function))


@op("aten.relu.default")
def relu(cx: Context, x: Value) -> Value:
    """The larger of 0 and ``x``."""
    return cx.call("nn.relu", x, order=x.order)


@op("aten.hardtanh.default")
def hardtanh(cx: Context, x: Value, low: Number = -1, high: Number = 1) -> Value:
    """Values clipped to the range between two numbers."""
    known: dict[tuple[Number, Number], str] = {(0, 6): "nn.relu6", (-1, 1): "nn.hard_tanh"}
    if (low, high) in known and is_inexact(x.dtype):
        return cx.call(known[low, high], x, order=x.order)
    bounds = (literal(low, x.dtype), literal(high, x.dtype))
    return cx.call("mx.clip", x, *bounds, order=x.order)


@op("aten.relu6.default")
def relu6(cx: Context, x: Value) -> Value:
    """Values clipped to the range from 0 to 6."""
    return hardtanh(cx, x, 0, 6)


@op("aten.leaky_relu.default", restrictions=FLOATING_ONLY)
def leaky_relu(cx: Context, x: Value, slope: Number = 0.01) -> Value:
    """``slope * x`` below zero; MLX's function is right for slopes up to 1 other than 0."""
    require_floating(cx, "leaky_relu", x)
    if slope > 1 or slope == 0:
        return cx.function(functions.leaky_relu, x, slope, order=x.order)
    given = OMIT if slope == 0.01 else slope
    return cx.call("nn.leaky_relu", x, negative_slope=given, order=x.order)


@op("aten.rrelu.default", restrictions="evaluation mode only")
def rrelu(
    cx: Context,
    x: Value,
    lower: Number = 1 / 8,
    upper: Number = 1 / 3,
    training: bool = False,
    generator: None = None,
) -> Value:
    """``leaky_relu`` with the mean of the slopes that training draws from."""
    if training:
        raise cx.refuse("random slopes in training mode: call model.eval() first")
    return leaky_relu(cx, x, (lower + upper) / 2)


@op("aten.gelu.default", restrictions=FLOATING_ONLY)
def gelu(cx: Context, x: Value, *, approximate: str = "none") -> Value:
    """``x`` times the normal distribution function, exact or by ``tanh``."""
    require_floating(cx, "gelu", x)
    function = "nn.gelu" if approximate == "none" else "nn.gelu_approx"
    return cx.call(function, x, order=x.order)


@op("aten.softplus.default", restrictions=FLOATING_ONLY)
def softplus(cx: Context, x: Value, beta: Number = 1, threshold: Number = 20) -> Value:
    """``log(1 + exp(beta * x)) / beta``; the threshold changes nothing in float32 at 20."""
    require_floating(cx, "softplus", x)
    if beta == 1 and threshold == 20:
        return cx.call("nn.softplus", x, order=x.order)
    settings = [beta] if threshold == 20 else [beta, threshold]
    return cx.function(functions.softplus, x, *settings, order=x.order)


@op("aten.prelu.default", restrictions=FLOATING_ONLY)
def prelu(cx: Context, x: Value, weight: Value) -> Value:
    """A learned slope below zero, one for all or one per channel (logical axis 1)."""
    require_floating(cx, "prelu", x, weight)
    if x.ndim == 0:
        weight = reshaped(cx, weight, ())
    per_channel = weight.ndim == 1 and weight.shape[0] != 1
    if per_channel and x.axis(1) != x.ndim - 1:
        weight = reshaped(cx, weight, (weight.shape[0], *(1,) * (x.ndim - 2)))
        (x, weight), _ = align(cx, x, weight)
    return cx.call("nn.prelu", x, weight, order=x.order)


@op("aten._prelu_kernel.default", restrictions=FLOATING_ONLY)
def prelu_kernel(cx: Context, x: Value, weight: Value) -> Value:
    """A learned slope below zero, of a shape that broadcasts."""
    require_floating(cx, "prelu", x, weight)
    (x, weight), order = align(cx, x, weight)
    return cx.call("nn.prelu", x, weight, order=order)


@op("aten.glu.default", restrictions=FLOATING_ONLY)
def glu(cx: Context, x: Value, dim: int = -1) -> Value:
    """The first half along an axis, gated by the sigmoid of the second."""
    require_floating(cx, "glu", x)
    axis = stored_axis(x, dim)
    return cx.call("nn.glu", x, axis=OMIT if axis == -1 else axis, order=x.order)


@op("aten.softmax.int", "aten._softmax.default")
def softmax(cx: Context, x: Value, dim: int, _: torch.dtype | bool | None = None) -> Value:
    """Exponentials over their sum along an axis, half precision summed in float32."""
    if x.ndim == 0:
        return by_vectors(cx, softmax, x, dim)
    wide = cast_to(x, cx.dtype)
    precise = True if cx.dtype in HALF else OMIT
    template = "mx.softmax(x, axis=axis, precise=precise)"
    return emit(
        cx, template, wide.dtype, x.order, x=wide, axis=stored_axis(x, dim), precise=precise
    )


@op("aten.log_softmax.int", "aten._log_softmax.default")
def log_softmax(cx: Context, x: Value, dim: int, _: torch.dtype | bool | None = None) -> Value:
    """The logarithm of softmax along an axis."""
    if x.ndim == 0:
        return by_vectors(cx, log_softmax, x, dim)
    if 0 in x.shape:
        return filled(cx, 0, cx.shape)
    wide = cast_to(x, torch.float32)
    axis = stored_axis(x, dim)
    template = "nn.log_softmax(x, axis=axis)"
    return emit(cx, template, wide.dtype, x.order, x=wide, axis=OMIT if axis == -1 else axis)
