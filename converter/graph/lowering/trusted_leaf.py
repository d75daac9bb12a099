"""The call of a layer by a rule that the user registered: it stands for the whole module.

Nothing inside says what is an argument and what a result, as an op does for torch.nn's layers: the
module's own call says it for the arguments, the rule for the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from mlxport.converter.graph.capture.arguments import Argument
from mlxport.converter.graph.capture.results import ModuleResults
from mlxport.converter.graph.ir.context import Context, Unsupported
from mlxport.converter.graph.ir.nodes import flat
from mlxport.converter.graph.ir.value import Value, logical_order
from mlxport.converter.graph.lowering.layer_axes import arrange_for, order_after
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal


def trusted_call(
    spec: LayerSpec,
    cx: Context,
    module: torch.nn.Module,
    inputs: Sequence[Any],
    known: Sequence[Argument],
    given: ModuleResults | None,
) -> tuple[tuple[Value, ...], list[Value], int | tuple[int, ...]]:
    """Return what the MLX layer is called with, what it gives, and what of it the graph gives.

    Args:
        spec: what the rule answered.
        cx: the body and the node being lowered.
        module: the torch module.
        inputs: the values of the placeholders of its captured graph.
        known: which argument of ``forward`` each of them is.
        given: which result of ``forward`` each of its outputs is; None where that is not known.

    Raises:
        Unsupported: the layer of the rule cannot take this call.
    """
    _check_tensors(spec, module)
    arguments = tuple(_arranged(spec, cx, value) for value in _in_order(inputs, known))
    names = [str(name) for name in tree_leaves(spec.results)]
    if given is None:
        raise Unsupported("which of its results is which cannot be told on the example inputs")
    if len(names) != len(given.shapes):
        raise Unsupported(
            f"its rule says it gives {len(names)} tensors, its forward gives {len(given.shapes)}: "
            "name them all in LayerSpec.results"
        )
    shapes = list(given.shapes)
    for place, shape in zip(given.places, cx.results, strict=True):
        shapes[place] = shape
    first = arguments[0] if arguments else None
    results = [
        Value(shape, dtype, _order(spec, first, len(shape)), name)
        for (shape, dtype), name in zip(shapes, names, strict=True)
    ]
    return arguments, results, given.places if given.nested else given.places[0]


def _in_order(inputs: Sequence[Any], known: Sequence[Argument]) -> list[Value]:
    values = flat(inputs)
    if len(values) != len(inputs):
        raise Unsupported("it is called with something else than tensors")
    if len(values) == 1 and not known:
        return values
    if sorted(argument.position for argument in known) != list(range(len(values))):
        raise Unsupported(
            "which argument of its forward is which cannot be told, or forward leaves one unused"
        )
    order = sorted(range(len(values)), key=lambda i: known[i].position)
    return [values[i] for i in order]


def _arranged(spec: LayerSpec, cx: Context, value: Value) -> Value:
    flat_enough = spec.axes is Axes.CHANNELS_LAST and value.ndim < 3
    return cx.logical(value) if flat_enough else arrange_for(spec, cx, value)


def _order(spec: LayerSpec, first: Value | None, ndim: int) -> tuple[int, ...]:
    if first is None or ndim < 2:
        return logical_order(ndim)
    try:
        return order_after(spec, first, ndim)
    except Refusal as reason:
        raise Unsupported(f"{reason}; let its rule answer with axes=Axes.LOGICAL") from reason


def _check_tensors(spec: LayerSpec, module: torch.nn.Module) -> None:
    served = {*spec.ignored, *(key for entry in spec.entries for key in entry.sources)}
    left = [key for key in module.state_dict() if key not in served]
    if left:
        raise Unsupported(
            f"its rule says nothing of {', '.join(left)}: name them in LayerSpec.entries, or in "
            "LayerSpec.ignored with the reason"
        )
