"""In which order to store what can be stored in any: as its consumers ask for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from torch.fx import Node

from mlxport.converter.graph.capture.leaves import plain_path
from mlxport.converter.graph.ir.value import ARRAY, COLUMNS, INPUT, MADE, PARTS, Order

Demands = Mapping[str, Sequence[Order]]
Preferences = Mapping[str, Order]


def place_of(node: Node, path: str) -> str:
    """Return what tells a node from all others of a model; the same for every call of a module.

    Args:
        node: a node of a captured graph.
        path: captured path of the module whose graph it is.
    """
    return f"{plain_path(path)}:{node.name}"


def unanimous(demands: Demands, known: Preferences) -> Iterator[dict[str, Order]]:
    """Yield what to try: the orders on which all consumers agree, at once and kind by kind.

    Args:
        demands: origin -> the orders asked for.
        known: the preferences so far.
    """
    agreed = {
        origin: orders[0]
        for origin, orders in demands.items()
        if len(set(orders)) == 1 and origin not in known and not origin.startswith((PARTS, COLUMNS))
    }
    kinds = [{k: v for k, v in agreed.items() if k.startswith(i)} for i in (INPUT, ARRAY, MADE)]
    yield from ([agreed] if agreed else [])
    if sum(map(bool, kinds)) > 1:
        yield from filter(None, kinds)


def of_parts(demands: Demands, known: Preferences) -> Iterator[dict[str, Order]]:
    """Yield what to try: arrays transposed before they are taken apart, not each part after.

    Args:
        demands: origin -> the orders asked for, each by one part.
        known: the preferences so far.
    """
    asked = {
        origin: Counter(orders).most_common(1)[0]
        for origin, orders in demands.items()
        if origin.startswith(PARTS) and origin not in known
    }
    shared = {origin: order for origin, (order, times) in asked.items() if times > 1}
    if shared:
        yield shared
