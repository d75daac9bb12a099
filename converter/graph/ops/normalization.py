"""Normalisation by statistics of the input or by running ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mlxport.converter.graph.code import OMIT, expression
from mlxport.converter.graph.context import Context
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.value import Value

EPS = 1e-5
NO_UPDATE = "running statistics are not updated"


@op("aten.batch_norm.default", restrictions=NO_UPDATE)
def batch_norm(
    cx: Context,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Value:
    """``torch.nn.functional.batch_norm`` at inference, or without running statistics."""
    if training and running_mean is not None:
        raise cx.refuse(
            "batch norm at training updates its running statistics; call model.eval() first"
        )
    x = cx.channels_last(x)
    statistics = {"training": True} if training else _statistics(running_mean, running_var)
    return cx.layer_function(
        "normalization",
        "batch_norm",
        x,
        order=x.order,
        **statistics,
        **_affine(weight, bias, eps),
    )


@op("aten._native_batch_norm_legit_no_training.default")
def native_batch_norm_no_training(
    cx: Context,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    momentum: float,
    eps: float,
) -> tuple[Value, ...]:
    """Batch norm at inference; the statistics it saves for the gradient are empty."""
    y = batch_norm(cx, x, weight, bias, running_mean, running_var, False, momentum, eps)
    return (y, *_empty_statistics(cx))


@op("aten._native_batch_norm_legit_functional.default", restrictions=NO_UPDATE)
def native_batch_norm_functional(
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
    """Batch norm that gives back its running statistics, which inference leaves as they are."""
    y = batch_norm(cx, x, weight, bias, running_mean, running_var, training, momentum, eps)
    return (y, *_empty_statistics(cx), running_mean, running_var)


@op("aten.instance_norm.default", restrictions=NO_UPDATE)
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
        statistics = {**_statistics(running_mean, running_var), "use_input_stats": False}
    return cx.layer_function(
        "normalization",
        "instance_norm",
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
    return cx.layer_function(
        "normalization",
        "group_norm",
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
    return cx.layer_function(
        "normalization",
        "layer_norm",
        x,
        tuple(normalized_shape),
        order=x.order,
        **_affine(_logical(cx, weight), _logical(cx, bias), eps),
    )


@op("aten.rms_norm.default")
def rms_norm(
    cx: Context,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    eps: float | None = None,
) -> Value:
    """``torch.nn.functional.rms_norm``; ``eps`` is float32's where none is given."""
    x = cx.last(x, len(normalized_shape))
    if len(normalized_shape) == 1:
        eps = torch.finfo(torch.float32).eps if eps is None else eps
        template = "mx.fast.rms_norm(x, weight, eps)"
        return cx.emit(template, order=x.order, x=x, weight=weight, eps=eps)
    return cx.layer_function(
        "normalization",
        "rms_norm",
        x,
        tuple(normalized_shape),
        order=x.order,
        weight=OMIT if weight is None else cx.logical(weight),
        eps=OMIT if eps is None else eps,
    )


def _statistics(mean: Value | None, var: Value | None) -> dict[str, Any]:
    return {"running_mean": mean, "running_var": var}


def _affine(weight: Value | None, bias: Value | None, eps: float) -> dict[str, Any]:
    return {
        "weight": OMIT if weight is None else weight,
        "bias": OMIT if bias is None else bias,
        "eps": OMIT if eps == EPS else eps,
    }


def _logical(cx: Context, value: Value | None) -> Value | None:
    return None if value is None else cx.logical(value)


def _empty_statistics(cx: Context) -> tuple[Value, ...]:
    empty = expression("mx.zeros(0)", {})
    return tuple(cx.compute(empty, shape, dtype) for shape, dtype in cx.results[1:3])
