"""In which axis order a layer takes its input and gives its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.user_files import is_mlx
from mlxport.converter.graph.ir.value import Order, Value, logical_order
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal


def arrange_for(spec: LayerSpec, cx: Context, value: Value) -> Value:
    """Return an input in the axis order a layer wants."""
    if spec.axes is Axes.CHANNELS_LAST:
        return cx.channels_last(value, spec.rank)
    if spec.axes is Axes.FEATURES_LAST:
        return cx.last(value, spec.rank or 1)
    return cx.logical(value) if spec.axes is Axes.LOGICAL else value


def for_inputs(spec: LayerSpec, inputs: Sequence[Value]) -> LayerSpec:
    """Return the spec of a layer for inputs with as many axes as these have.

    Raises:
        Refusal: one is no ``(N, C, *S)``, nor ``(C, *S)`` for a layer that takes it. MLX's own
            spatial layers all want a batch axis; the others do without.
    """
    if len(inputs) == 1 and inputs[0].ndim in spec.by_ndim:
        spec = replace(spec, target=spec.by_ndim[inputs[0].ndim])
    if spec.axes is not Axes.CHANNELS_LAST or spec.rank is None:
        return spec
    allowed = {spec.rank + 2} if is_mlx(spec.target) else {spec.rank + 2, spec.rank + 1}
    for value in inputs:
        if value.ndim not in allowed:
            raise Refusal(f"{spec.target.__name__} takes no input with {value.ndim} axes")
    return spec


def order_after(spec: LayerSpec, value: Value, ndim: int) -> Order:
    """Return the axis order of a layer's output.

    Raises:
        Refusal: it cannot be derived from the input's.
    """
    if ndim == value.ndim:
        return value.order
    if spec.axes is Axes.LOGICAL:
        return logical_order(ndim)
    raise Refusal(f"{spec.target.__name__} changes the number of axes from {value.ndim} to {ndim}")
