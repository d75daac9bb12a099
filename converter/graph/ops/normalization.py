"""Handlers of normalisation, by statistics of the input or by running ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mlxport.converter.graph.ir.code import OMIT, call, expression
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import cast_to, mlx_dtype
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Value, logical_order
from mlxport.converter.graph.ops.arguments import reads, require_floating, unread
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.norm import functions

EPS = 1e-5


@op("aten._native_batch_norm_legit_no_training.default")
def batch_norm(
    cx: Context,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    momentum: float,
    eps: float,
) -> tuple[Value, ...]:
    """``torch.nn.functional.batch_norm`` by its running statistics."""
    x = cx.channels_last(x)
    y = cx.function(
        functions.batch_norm,
        x,
        order=x.order,
        running_mean=running_mean,
        running_var=running_var,
        **_affine(weight, bias, eps),
    )
    saved = (
        cx.compute(call("mx.zeros", 0, dtype=mlx_dtype(dtype)), shape, dtype)
        for shape, dtype in cx.results[1:]
    )
    return (y, *saved)  # PyTorch saves statistics for the gradient: at inference, empty ones


@op("aten._native_batch_norm_legit.no_stats")
def batch_norm_by_input(
    cx: Context,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Value, ...]:
    """``torch.nn.functional.batch_norm`` that keeps no running statistics."""
    x = cx.channels_last(x)
    affine = _affine(weight, bias, eps)
    y = cx.function(functions.batch_norm, x, order=x.order, training=True, **affine)
    operands = {"x": cast_to(x, cx.results[1][1]), "axes": tuple(range(x.ndim - 1))}
    mean = expression("mx.mean(x, axis=axes)", operands)
    deviation = expression("mx.rsqrt(mx.var(x, axis=axes) + eps)", {**operands, "eps": eps})
    return y, cx.compute(mean, *cx.results[1]), cx.compute(deviation, *cx.results[2])


@op("aten._native_batch_norm_legit_functional.default", restrictions="training only")
def batch_norm_at_training(
    cx: Context,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Value, ...]:
    """``torch.nn.functional.batch_norm`` with ``training=True``, which moves its statistics."""
    if not training:
        raise cx.refuse("at inference it moves no running statistics")
    results = batch_norm_by_input(cx, x, weight, bias, training, momentum, eps)
    moved = tuple(
        Value(shape, dtype, logical_order(1), name)
        for (shape, dtype), name in zip(
            cx.results[3:], ("running_mean", "running_var"), strict=True
        )
    )
    given = cx.channels_last(x), running_mean, running_var, momentum
    code = cx.calling(functions.updated_batch_statistics, *given)
    cx.statements.append(Statement(moved, code))
    return *results, *moved


@op("aten.instance_norm.default", restrictions="running statistics are not updated")
def instance_norm(
    cx: Context,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Value:
    """``torch.nn.functional.instance_norm`` by the input's statistics or the running ones."""
    if use_input_stats and running_mean is not None:
        raise cx.refuse(
            "instance norm at training updates its running statistics; call model.eval() first"
        )
    x = cx.channels_last(x)
    statistics: dict[str, Any] = {}
    if not use_input_stats:
        statistics = {
            "running_mean": running_mean,
            "running_var": running_var,
            "use_input_stats": False,
        }
    return cx.function(
        functions.instance_norm,
        x,
        order=x.order,
        **statistics,
        **_affine(weight, bias, eps),
    )


@op("aten.group_norm.default")
def group_norm(
    cx: Context,
    x: Value,
    num_groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = EPS,
    cudnn_enabled: bool = True,
) -> Value:
    """``torch.nn.functional.group_norm``."""
    x = cx.channels_last(x)
    return cx.function(
        functions.group_norm,
        x,
        num_groups,
        order=x.order,
        **_affine(weight, bias, eps),
    )


@op("aten.layer_norm.default")
def layer_norm(
    cx: Context,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = EPS,
    cudnn_enable: bool = True,
) -> Value:
    """``torch.nn.functional.layer_norm``; over one axis by MLX's fused one."""
    x = cx.last(x, len(normalized_shape))
    if len(normalized_shape) == 1:
        return cx.emit(
            "mx.fast.layer_norm(x, weight, bias, eps)",
            order=x.order,
            x=x,
            weight=weight,
            bias=bias,
            eps=eps,
        )
    return cx.function(
        functions.layer_norm,
        x,
        tuple(normalized_shape),
        order=x.order,
        **_affine(_logical(cx, weight), _logical(cx, bias), eps),
    )


@op("aten.native_layer_norm.default")
def native_layer_norm(
    cx: Context,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Value | None,
    bias: Value | None,
    eps: float,
) -> tuple[Value, ...]:
    """``layer_norm`` with the statistics that PyTorch keeps for the gradient."""
    y = layer_norm(cx, x, normalized_shape, weight, bias, eps)
    if not (reads(cx, 1) or reads(cx, 2)):
        return y, *unread(cx, 1, doing="native_layer_norm")
    x = cx.last(x, len(normalized_shape))
    shape = tuple(normalized_shape)
    orders = [x.order] * 2
    given = cx.giving(cx.results[1:])
    return y, *given.function_many(functions.layer_statistics, x, shape, eps, orders=orders)


@op("aten.native_group_norm.default")
def native_group_norm(
    cx: Context,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    samples: Any,
    channels: Any,
    pixels: Any,
    num_groups: int,
    eps: float,
) -> tuple[Value, ...]:
    """``group_norm`` with the statistics that PyTorch keeps for the gradient."""
    y = group_norm(cx, x, num_groups, weight, bias, eps)
    if not (reads(cx, 1) or reads(cx, 2)):
        return y, *unread(cx, 1, doing="native_group_norm")
    x = cx.channels_last(x)
    orders = [logical_order(2)] * 2
    given = cx.giving(cx.results[1:])
    return y, *given.function_many(functions.group_statistics, x, num_groups, eps, orders=orders)


@op("aten.rms_norm.default")
def rms_norm(
    cx: Context,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    eps: float | None = None,
) -> Value:
    """``torch.nn.functional.rms_norm``; ``eps`` is float32's where none is given."""
    require_floating(cx, "rms_norm", x)
    x = cx.last(x, len(normalized_shape))
    if len(normalized_shape) == 1:
        eps = torch.finfo(torch.float32).eps if eps is None else eps
        template = "mx.fast.rms_norm(x, weight, eps)"
        return cx.emit(template, order=x.order, x=x, weight=weight, eps=eps)
    return cx.function(
        functions.rms_norm,
        x,
        tuple(normalized_shape),
        order=x.order,
        weight=OMIT if weight is None else cx.logical(weight),
        eps=OMIT if eps is None else eps,
    )


def _affine(weight: Value | None, bias: Value | None, eps: float) -> dict[str, Any]:
    return {
        "weight": OMIT if weight is None else weight,
        "bias": OMIT if bias is None else bias,
        "eps": OMIT if eps == EPS else eps,
    }


def _logical(cx: Context, value: Value | None) -> Value | None:
    return None if value is None else cx.logical(value)
