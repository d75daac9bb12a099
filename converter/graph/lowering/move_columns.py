"""Linear layers that take a flattened channels-last array: the columns of the weight move instead.

The array is flattened in PyTorch's order for consumers that need that, which takes a transpose, and
as it is stored for linear layers. Dead code elimination leaves the one that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.ir.code import expression
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.provenance import Provenance, ProvenanceKind
from mlxport.converter.graph.ir.value import Order, Value
from mlxport.converter.plan.record import Merged
from mlxport.converter.plan.steps import flattened_columns
from mlxport.converter.rules.registry import LayerSpec

_ELSEWHERE: Order = ()


def behind_flattened(
    cx: Context, spec: LayerSpec, path: str, value: Value, movable: Callable[[], bool]
) -> tuple[LayerSpec, Value]:
    """Return the spec of a linear layer and what to call it with.

    All its calls have to agree, so the first pass of the lowering only asks.

    Args:
        cx: the lowering context.
        spec: what to build.
        path: of the layer.
        value: what PyTorch calls it with.
        movable: whether no other layer shares its weight, and this is its first call.
    """
    key = Provenance(ProvenanceKind.COLUMNS, path)
    demands = cx.model.demands.setdefault
    known = value.variable.flattened
    if known is None or not _is_same(value, known.result) or not movable():
        demands(key, []).append(_ELSEWHERE)
        return spec, value
    flat, x = known.result, known.base
    kept = flat.ndim - 1
    order = tuple(axis - kept for axis in x.order[kept:])
    if cx.model.preferences.get(key) != order:
        demands(key, []).append(order)
        return spec, value
    merged = Merged(x.shape[kept:], order)
    unmoved = cx.compute(expression("x.flatten(axis)", {"x": x, "axis": kept}), flat.shape, x.dtype)
    return _with_columns_moved(spec, merged), replace(unmoved, merged=merged)


def is_movable(model: torch.nn.Module, module: torch.nn.Module) -> bool:
    """Whether the weight of a linear layer is a parameter that nothing else shares."""
    weight = module._parameters.get("weight")
    if weight is None or not isinstance(weight.data, torch.Tensor):
        return False
    storage = weight.untyped_storage().data_ptr()
    names = model.named_parameters(remove_duplicate=False)
    return sum(p.untyped_storage().data_ptr() == storage for _, p in names) == 1


def of_columns(
    demands: Mapping[Provenance, Sequence[Order]], known: Mapping[Provenance, Order]
) -> list[dict[Provenance, Order]]:
    """Return what to try: the linear layers all of whose calls take an array as it is stored."""
    columns = ProvenanceKind.COLUMNS
    asked = {p: set(orders) for p, orders in demands.items() if p.kind is columns}
    agreed = {k: min(o) for k, o in asked.items() if len(o) == 1 and o != {_ELSEWHERE}}
    return [agreed] if agreed.keys() - known.keys() else []


def served_columns(lowered: Lowered, preferences: Mapping[Provenance, Order]) -> bool:
    """Whether all calls of layers with moved columns agree, and nothing else reads the weights."""
    moved = [provenance for provenance in preferences if provenance.kind is ProvenanceKind.COLUMNS]
    weights = {f"{provenance.name}.weight" for provenance in moved}
    return (
        not any(key in lowered.scope.demands for key in moved)
        and not weights & lowered.arrays.keys()
    )


def _is_same(value: Value, flat: Value) -> bool:
    return value.shape == flat.shape and value.is_logical and flat.is_logical


def _with_columns_moved(spec: LayerSpec, merged: Merged) -> LayerSpec:
    rows = spec.args[1]
    steps = flattened_columns(rows, merged.sizes, merged.order)
    entries = tuple(
        replace(e, steps=(*e.steps, *steps)) if e.targets == ("weight",) else e
        for e in spec.entries
    )
    return replace(spec, entries=entries)
