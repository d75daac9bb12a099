"""How the graph of a leaf module calls its op: what of it is an argument, and what is given back.

torch.export flattens what a module takes and gives, orders its inputs by their first use and drops
the results nobody reads. The op inside shows which is which.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, Node

from mlxport.converter.graph.ir.sizes import is_symbolic
from mlxport.converter.rules.registry import Refusal, Rule

_ZEROS = ("aten.full.default", "aten.zeros.default")


@dataclass(frozen=True)
class LeafCall:
    """One call of a leaf module.

    Attributes:
        op: the node of the op that the layer computes.
        arguments: what the module is called with, in the order of its ``forward``; tuples nested
            as there. Zeros that it makes itself are left out.
        gives: which of the op's results the graph gives; a number where it gives just one.
    """

    op: Node
    arguments: tuple[Any, ...]
    gives: int | tuple[int, ...]


def read_call(graph: Graph, rule: Rule, module: torch.nn.Module, inputs: Sequence[Any]) -> LeafCall:
    """Read a call off the captured graph of a leaf.

    Args:
        graph: the captured graph of the module.
        rule: the rule of the module.
        module: the torch module.
        inputs: the values of the placeholders of the graph, in their order.

    Raises:
        Refusal: the graph does something else with the op than the module's class does.
    """
    if module._forward_hooks or module._forward_pre_hooks:
        raise Refusal(f"hooks change what {type(module).__name__} takes or gives")
    (op,) = (node for node in graph.nodes if str(node.target) in rule.ops)
    placeholders = (node for node in graph.nodes if node.op == "placeholder")
    given = dict(zip(placeholders, inputs, strict=True))
    arguments, weights = [], []
    for argument in op.args:
        nodes = [n for n in torch.utils._pytree.tree_leaves(argument) if isinstance(n, Node)]
        if nodes and all(node in given for node in nodes):
            arguments.append(_filled(argument, given))
        elif nodes and all(node.op == "get_attr" for node in nodes):
            weights += [str(node.target) for node in nodes]
        elif not all(map(_is_zeros, nodes)):
            raise Refusal(f"{op.target} is given something computed in {type(module).__name__}")
    expected = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    if weights != expected:
        raise Refusal(f"{op.target} takes {weights} of {type(module).__name__}, not {expected}")
    output = next(node for node in graph.nodes if node.op == "output").args[0]
    if isinstance(output, Node):
        return LeafCall(op, tuple(arguments), _result(op, output))
    tensors = [n for n in output if not (isinstance(n, Node) and is_symbolic(n))]
    results = tuple(_result(op, node) for node in tensors)
    alone = len(tensors) == 1 < len(output)
    return LeafCall(op, tuple(arguments), results[0] if alone else results)


def _filled(argument: Any, given: Mapping[Node, Any]) -> Any:
    if isinstance(argument, Node):
        return given[argument]
    return tuple(_filled(item, given) for item in argument)


def _is_zeros(node: Node) -> bool:
    return str(node.target) in _ZEROS and node.args[1:] in ((), (0,))


def _result(op: Node, node: Any) -> int:
    if node is op:
        return 0
    if isinstance(node, Node) and node.target is operator.getitem:
        source, number = node.args
        if source is op and isinstance(number, int):
            return number
    raise Refusal(f"{op.target} is not all that the module computes")
