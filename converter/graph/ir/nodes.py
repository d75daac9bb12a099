"""Read the nodes of captured graphs."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves

from mlxport.converter.graph.ir.context import Context, Unsupported
from mlxport.converter.graph.ir.dtypes import narrower
from mlxport.converter.graph.ir.sizes import (
    NotStatic,
    Size,
    is_symbolic,
    shape_of,
    size_text,
    symbolic,
)
from mlxport.converter.graph.ir.value import Value, logical_order
from mlxport.converter.plan.record import Layout

# Key of a node's metadata: the mask of this attention leaves every query a key.
ATTENDED = "every query has a key"

# The last line of a stack trace is that of the model's forward: what a node is computed for.
_ASSIGNED = re.compile(r"([A-Za-z]\w*)(?:\s*:[^=]+)?\s*=(?!=)")
_LONGEST_NAME = 24  # characters; a longer one breaks more lines than it explains


def graph_of(module: torch.nn.Module) -> Graph:
    """Return the graph of a captured module."""
    graph: Any = module.graph
    return graph  # type: ignore[no-any-return]


def results_of(node: Node) -> tuple[tuple[tuple[Any, ...], torch.dtype], ...]:
    """Return shape and dtype of every tensor a node gives, the dtype as MLX computes it."""
    return tuple((shape_of(t), narrower(t.dtype)) for t in tensors_of(node))


def tensors_of(node: Node) -> list[torch.Tensor]:
    """Return every tensor that a node gives, without its values."""
    found = tree_leaves(node.meta.get("val"))
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]


def gives_the_same(op: Any) -> bool:
    """Whether an op of ATen's gives the same in every run: it draws nothing, and fills its result.

    Args:
        op: the target of a node.
    """
    return (
        isinstance(op, torch._ops.OpOverload)
        and op.namespace == "aten"
        and torch.Tag.nondeterministic_seeded not in op.tags
        and not op._schema.name.startswith(("aten::empty", "aten::new_empty"))
    )


def name_of(node: Node) -> str:
    """Name a node's result as its author does, or else after its op: ``cat``, ``mul``."""
    if (name := _assigned_name(node)) is not None:
        return name
    target = (
        str(node.target).removeprefix("aten.").split(".")[0]
        if node.op == "call_function"
        else node.name
    )
    return re.sub(r"\W|_\d+$", "", target).strip("_") or "y"


def _assigned_name(node: Node) -> str | None:
    """Return the name that the author's line assigns what a node computes to, if there is one."""
    lines = (node.meta.get("stack_trace") or "").rstrip().splitlines()
    found = _ASSIGNED.match(lines[-1].strip()) if lines else None
    if found is None:
        return None
    name = found[1]
    fits = len(name) <= _LONGEST_NAME and name.isascii() and not keyword.iskeyword(name)
    return name if fits else None


def bound(graph: Graph, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return arguments in the order of the placeholders of a submodule's graph."""
    names = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
    return [*args, *(kwargs[name] for name in names[len(args) :])]


def flat(values: Any) -> list[Value]:
    """Return all values in nested tuples, lists and dicts, in order."""
    return [v for v in tree_leaves(values) if isinstance(v, Value)]


def stand_in(node: Node, cx: Context) -> Any:
    """Return what PyTorch says a node gives, for going on after a problem."""
    values = [Value(s, dtype, logical_order(len(s)), cx.name) for s, dtype in cx.results]
    return values[0] if isinstance(node.meta.get("val"), torch.Tensor) else tuple(values)


def check_result(node: Node, result: Any) -> None:
    """Hold a handler's answer against what PyTorch says the node gives."""
    expected = [(tuple(shape), dtype) for shape, dtype in results_of(node)]
    got = [(tuple(value.shape), value.dtype) for value in flat(result)]
    if expected != got:
        raise Unsupported(f"the handler gives {got} where PyTorch gives {expected}")


def layouts(
    values: Sequence[Value], size_names: Mapping[str, str] = MappingProxyType({})
) -> tuple[Layout, ...]:
    """Return the layouts of values that pass a module's boundary.

    Args:
        values: the values.
        size_names: torch's symbol for a dynamic size -> what to call it.
    """
    return tuple(
        Layout(
            tuple(n if isinstance(n, int) else size_text(n, size_names) for n in v.shape),
            str(v.dtype).removeprefix("torch."),
            v.order,
            v.merged,
        )
        for v in values
    )


def without_sizes(values: Sequence[Any]) -> list[Any]:
    """Return values without the sizes among them: a body reads sizes off its arrays."""
    return [value for value in values if not isinstance(value, Size)]


def with_sizes(graph: Graph, given: Any) -> Any:
    """Return what a captured module gives: its tensors, and the sizes torch.export passes on.

    Args:
        graph: its graph.
        given: the value of its tensor, or of its tensors in order.
    """
    output = next(node for node in graph.nodes if node.op == "output").args[0]
    nodes = [output] if isinstance(output, Node) else output
    if not any(isinstance(node, Node) and is_symbolic(node) for node in nodes):
        return given
    tensors = iter([given] if isinstance(given, Value) else given)
    outputs = [symbolic(n.meta["val"]) if is_symbolic(n) else next(tensors) for n in nodes]
    return outputs[0] if isinstance(output, Node) else tuple(outputs)


def where_static(node: Node, reason: NotStatic) -> Unsupported:
    """Return the problem of a handler that met a dynamic size where it needs a number."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else []
    given = [*zip(names, node.args, strict=False), *node.kwargs.items()]
    dynamic = [
        name
        for name, value in given
        if any(isinstance(n, Node) and is_symbolic(n) for n in tree_leaves(value))
    ]
    where = f"argument {', '.join(map(repr, dynamic))}" if dynamic else "its shapes"
    return Unsupported(f"{reason} in {where}; convert with that axis static")
