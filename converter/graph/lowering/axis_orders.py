"""Choose the axis orders of inputs, parameters and other free arrays, as their consumers demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mlxport.converter.graph.ir.provenance import Provenance, ProvenanceKind
from mlxport.converter.graph.ir.value import Order

Demands = Mapping[Provenance, Sequence[Order]]
AxisPreferences = Mapping[Provenance, Order]

_FREE = (ProvenanceKind.INPUT, ProvenanceKind.ARRAY, ProvenanceKind.RESULT)  # any order at no cost


def unanimous(demands: Demands, known: AxisPreferences) -> Iterator[dict[Provenance, Order]]:
    """Yield what to try: the orders on which all consumers agree, at once and kind by kind.

    Args:
        demands: provenance -> the orders asked for.
        known: the preferences so far.
    """
    agreed = {
        provenance: orders[0]
        for provenance, orders in demands.items()
        if len(set(orders)) == 1 and provenance not in known and provenance.kind in _FREE
    }
    kinds = [{o: order for o, order in agreed.items() if o.kind is kind} for kind in _FREE]
    yield from ([agreed] if agreed else [])
    if sum(map(bool, kinds)) > 1:
        yield from filter(None, kinds)


def of_parts(demands: Demands, known: AxisPreferences) -> Iterator[dict[Provenance, Order]]:
    """Yield what to try: arrays transposed before they are taken apart, not each part after.

    Args:
        demands: provenance -> the orders asked for, each by one part.
        known: the preferences so far.
    """
    asked = {
        provenance: Counter(orders).most_common(1)[0]
        for provenance, orders in demands.items()
        if provenance.kind is ProvenanceKind.SPLIT and provenance not in known
    }
    shared = {provenance: order for provenance, (order, times) in asked.items() if times > 1}
    if shared:
        yield shared
