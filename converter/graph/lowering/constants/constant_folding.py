"""Constant folding: what a model computes neither from its inputs nor from its tensors.

Such an array is the same at every call, and PyTorch computes it when the model is converted. Where
it has a short expression, that is written. It becomes an array of the model where MLX cannot
compute it (in float64, by an op without a handler), and where it holds integers or booleans
computed from floats, as rounding could decide them otherwise (the buckets of relative positions,
which a logarithm tells apart). Any other is computed as PyTorch does: its computation says what it
is, and the weights gain no array that no checkpoint holds.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeAlias

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves

from mlxport.converter.graph.ir.constant_source import short_expression
from mlxport.converter.graph.ir.dtypes import MLX_NAME, is_inexact, narrower
from mlxport.converter.graph.ir.nodes import gives_the_same
from mlxport.converter.graph.ops.refusals import REFUSED_OPS
from mlxport.converter.graph.ops.registry import OPS

_logger = logging.getLogger(__name__)

LARGEST_FOLDED = 2**20  # elements
LARGEST_TABLE = 2**22  # elements, of what MLX cannot compute in the dtype

# Ops that give the array they are given.
_IDENTITIES = {
    torch.ops.aten.clone.default,
    torch.ops.aten.alias.default,
    torch.ops.aten.detach.default,
    torch.ops.aten.lift_fresh_copy.default,
}


class Form(Enum):
    """What becomes of a constant: a short expression, an array, its computation, or nothing."""

    EXPRESSION = auto()
    ARRAY = auto()
    COMPUTED = auto()
    UNREAD = auto()


@dataclass(frozen=True)
class ConstantResult:
    """The result of a node that is the same at every call.

    Attributes:
        form: what becomes of it.
        tensor: its values, where they are read; None of several tensors at once.
    """

    form: Form
    tensor: torch.Tensor | None = None


_Constants: TypeAlias = "Mapping[Node, ConstantResult]"


@dataclass
class ConstantFolding:
    """The constants of a model's graphs; the same in every pass.

    Attributes:
        known: graph -> its nodes that are constant.
    """

    known: dict[Graph, _Constants] = field(default_factory=dict)

    def of(self, graph: Graph, constant: Callable[[Node], torch.Tensor | None]) -> _Constants:
        """Return the nodes of a graph whose results are the same at every call.

        Args:
            graph: the graph of a captured module.
            constant: gives the tensor that a node reads of its module; None where a checkpoint or
                training may change it.
        """
        if graph not in self.known:
            self.known[graph] = _constants(graph, _values(graph, constant))
        return self.known[graph]


def _constants(graph: Graph, values: Mapping[Node, Any]) -> _Constants:
    floats: set[Node] = set()  # and what is computed from them
    for node, value in values.items():
        inexact = any(is_inexact(tensor.dtype) for tensor in _tensors(value))
        if inexact or not floats.isdisjoint(node.all_input_nodes):
            floats.add(node)
    found: dict[Node, ConstantResult] = {}
    for node in reversed(graph.nodes):
        if node in values:
            users = [user for user in node.users if _reads(user, found.get(user))]
            found[node] = _result(node, values, users, from_floats=node in floats)
    return found


def _reads(user: Node, known: ConstantResult | None) -> bool:
    """Whether a user of a constant reads it when the model runs, which assertions do not."""
    asserts = user.op == "call_function" and user.meta.get("val") is None
    return not asserts and (known is None or known.form is Form.COMPUTED)


def _result(
    node: Node, values: Mapping[Node, Any], users: list[Node], *, from_floats: bool
) -> ConstantResult:
    """Return what becomes of a constant that some nodes read when the model runs."""
    tensor = values[node]
    if not users:
        return ConstantResult(Form.UNREAD)
    if not isinstance(tensor, torch.Tensor):  # several; each is one of its own
        return ConstantResult(Form.COMPUTED)
    creates = not node.all_input_nodes or node.target in _IDENTITIES
    foreign = not _has_counterpart(node, values)
    if creates and not foreign:
        return ConstantResult(Form.COMPUTED, tensor)
    as_computed = tensor.to(narrower(tensor.dtype))
    if (tensor.ndim or not foreign) and short_expression(as_computed) is not None:
        return ConstantResult(Form.EXPRESSION, tensor)
    decided = from_floats and not is_inexact(tensor.dtype)
    rounded = decided and any(user not in values for user in users)
    return ConstantResult(Form.ARRAY if foreign or rounded else Form.COMPUTED, tensor)


def _has_counterpart(node: Node, values: Mapping[Node, Any]) -> bool:
    """Whether MLX could compute a constant: it has its dtype, that of its operands, and the op."""
    producer = node
    while producer.target is operator.getitem:
        producer = producer.all_input_nodes[0]
    if any(t.dtype not in MLX_NAME for n in (node, *_read(producer)) for t in _tensors(values[n])):
        return False
    name = str(producer.target)
    return producer.op != "call_function" or (name in OPS and name not in REFUSED_OPS)


def _read(node: Node) -> list[Node]:
    """Return the constants that an op reads; of one that passes an array on, none."""
    return [] if node.target in _IDENTITIES else node.all_input_nodes


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))


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
                    value = node.target(*given[0], **given[1])
            except Exception:  # it is left to the model
                _logger.debug("%s is not folded", node.target, exc_info=True)
                continue
            if _forms(value) == _forms(node.meta.get("val")):
                values[node] = value
    return values


def _forms(value: Any) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in _tensors(value)]


def _is_pure(node: Node) -> bool:
    """Whether a node gives the same arrays in every run, none of them too large to keep."""
    target = node.target
    if target is operator.getitem:
        return True
    if not isinstance(target, torch._ops.OpOverload) or not gives_the_same(target):
        return False
    found = list(_tensors(node.meta.get("val")))
    read = [tensor for n in node.all_input_nodes for tensor in _tensors(n.meta.get("val"))]
    foreign = any(tensor.dtype not in MLX_NAME for tensor in (*found, *read))
    largest = LARGEST_TABLE if foreign else LARGEST_FOLDED
    return (
        bool(found)
        and all(isinstance(size, int) for tensor in found for size in tensor.shape)
        and all(tensor.numel() <= largest for tensor in found)
        and not target._schema.is_mutable
    )
