"""Read the nodes of captured graphs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves

from mlxport.converter.graph.context import Context, Unsupported
from mlxport.converter.graph.value import Value, identity
from mlxport.converter.record import Layout


def graph_of(module: torch.nn.Module) -> Graph:
    """Return the graph of a captured module."""
    graph: Any = module.graph
    return graph  # type: ignore[no-any-return]


def results_of(node: Node) -> tuple[tuple[tuple[Any, ...], torch.dtype], ...]:
    """Return shape and dtype of every tensor a node gives."""
    found = tree_leaves(node.meta.get("val"))
    return tuple((tuple(t.shape), t.dtype) for t in found if isinstance(t, torch.Tensor))


def name_of(node: Node) -> str:
    """Name a node's result after its op: ``cat``, ``mul``."""
    target = (
        str(node.target).removeprefix("aten.").split(".")[0]
        if node.op == "call_function"
        else node.name
    )
    return re.sub(r"\W|_\d+$", "", target).strip("_") or "y"


def bound(graph: Graph, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return arguments in the order of the placeholders of a submodule's graph."""
    names = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
    return [*args, *(kwargs[name] for name in names[len(args) :])]


def flat(values: Any) -> list[Value]:
    """Return all values in nested tuples, lists and dicts, in order."""
    return [v for v in tree_leaves(values) if isinstance(v, Value)]


def stand_in(node: Node, cx: Context) -> Any:
    """Return what PyTorch says a node gives, for going on after a problem."""
    made = [Value(shape, dtype, identity(len(shape)), cx.name) for shape, dtype in cx.results]
    return made[0] if isinstance(node.meta.get("val"), torch.Tensor) else tuple(made)


def check_result(node: Node, result: Any) -> None:
    """Hold a handler's answer against what PyTorch says the node gives."""
    expected = [(tuple(shape), dtype) for shape, dtype in results_of(node)]
    got = [(tuple(value.shape), value.dtype) for value in flat(result)]
    if expected != got:
        raise Unsupported(f"the handler gives {got} where PyTorch gives {expected}")


def layouts(values: Sequence[Value]) -> tuple[Layout, ...]:
    """Return the layouts of values that pass a module's boundary."""
    return tuple(
        Layout(tuple(map(int, v.shape)), str(v.dtype).removeprefix("torch."), v.order)
        for v in values
    )
