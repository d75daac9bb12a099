"""Constant folding: what a model computes neither from its inputs nor from its tensors.

Such an array is the same at every call. Where it has a short expression, that is written; where it
holds integers or booleans computed from floats, it becomes an array of the model, as rounding could
decide them otherwise (the buckets of relative positions, which a logarithm tells apart). Any other
is computed as PyTorch does: its computation says what it is, and the weights gain no array that no
checkpoint holds.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Graph, Node

_logger = logging.getLogger(__name__)

LARGEST_FOLDED = 2**20  # elements

# Ops that give the array they are given.
_IDENTITIES = {
    torch.ops.aten.clone.default,
    torch.ops.aten.alias.default,
    torch.ops.aten.detach.default,
    torch.ops.aten.lift_fresh_copy.default,
}


@dataclass(frozen=True)
class ConstantResult:
    """The result of a node that is the same at every call.

    Attributes:
        tensor: its values.
        created: whether nothing is computed: an op creates it from numbers, or passes it on.
        rounded: whether it holds integers or booleans computed from floats, and is not folded
            away into another constant.
    """

    tensor: torch.Tensor
    created: bool
    rounded: bool = False


@dataclass
class ConstantFolding:
    """The constants of a model's graphs; the same in every pass.

    Attributes:
        known: graph -> its nodes that are constant.
    """

    known: dict[Graph, dict[Node, ConstantResult]] = field(default_factory=dict)

    def of(
        self, graph: Graph, constant: Callable[[Node], torch.Tensor | None]
    ) -> dict[Node, ConstantResult]:
        """Return the nodes of a graph whose results are the same at every call.

        Args:
            graph: the graph of a captured module.
            constant: gives the tensor that a node reads of its module; None where a checkpoint or
                training may change it.
        """
        if graph not in self.known:
            self.known[graph] = _constants(graph, constant)
        return self.known[graph]


def _constants(
    graph: Graph, constant: Callable[[Node], torch.Tensor | None]
) -> dict[Node, ConstantResult]:
    values = _values(graph, constant)
    arrays = {node: x for node, x in values.items() if isinstance(x, torch.Tensor)}
    floats: set[Node] = set()  # and what is computed from them
    found: dict[Node, ConstantResult] = {}
    for node, tensor in arrays.items():
        inputs = node.all_input_nodes
        if tensor.is_floating_point() or any(n in floats for n in inputs):
            floats.add(node)
        used = any(user not in arrays for user in node.users)
        rounded = used and node in floats and not tensor.is_floating_point()
        found[node] = ConstantResult(tensor, not inputs or node.target in _IDENTITIES, rounded)
    return found


def _values(graph: Graph, constant: Callable[[Node], torch.Tensor | None]) -> dict[Node, Any]:
    """Run the nodes of a graph that read nothing but constants."""
    values: dict[Node, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            tensor = constant(node)
            if tensor is not None:
                values[node] = tensor
        elif all(n in values for n in node.all_input_nodes) and _is_pure(node):
            given: Any = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            try:
                with torch.no_grad():
                    values[node] = node.target(*given[0], **given[1])
            except Exception:  # it is left to the model
                _logger.debug("%s is not folded", node.target, exc_info=True)
    return values


def _is_pure(node: Node) -> bool:
    """Whether a node gives the same small array in every run."""
    target = node.target
    if target is operator.getitem:
        return True
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return False
    value = node.meta.get("val")
    return (
        isinstance(value, torch.Tensor)
        and all(isinstance(size, int) for size in value.shape)
        and value.numel() <= LARGEST_FOLDED
        and not target._schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in target.tags
        and not target._schema.name.startswith(("aten::empty", "aten::new_empty"))
    )
