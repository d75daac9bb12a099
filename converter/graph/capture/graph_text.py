"""Print captured graphs as text: one line for each node, one block for each module called.

``conv2d: float32 (1, 8, 16, 16) = aten.conv2d.default(x, weight, bias)``. Holds no values of
tensors and no addresses, so that the same capture gives the same text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves


def graphs_text(root: torch.nn.Module) -> str:
    """Return the graphs of a captured program and of its modules, in the order of their calls.

    Args:
        root: the program with its module hierarchy, as torch.export unflattens it.
    """
    return "\n\n".join(_blocks(root, ""))


def _blocks(module: torch.nn.Module, path: str) -> Iterator[str]:
    graph: Any = module.graph
    lines = [f"graph of {path or 'the model'}", *(f"  {_node(node)}" for node in graph.nodes)]
    yield "\n".join(lines)
    called = dict.fromkeys(str(n.target) for n in graph.nodes if n.op == "call_module")
    for name in called:
        yield from _blocks(module.get_submodule(name), f"{path}.{name}" if path else name)


def _node(node: Node) -> str:
    if node.op == "output":
        return f"return {_argument(node.args[0])}"
    tensors = [v for v in tree_leaves(node.meta.get("val")) if isinstance(v, torch.Tensor)]
    gives = f"{node.name}: {', '.join(map(_type, tensors))}" if tensors else node.name
    if node.op == "placeholder":
        return gives
    if node.op == "get_attr":
        return f"{gives} = self.{node.target}"
    arguments = [*map(_argument, node.args)]
    arguments += [f"{name}={_argument(value)}" for name, value in node.kwargs.items()]
    called = f"self.{node.target}" if node.op == "call_module" else _function(node.target)
    return f"{gives} = {called}({', '.join(arguments)})"


def _type(tensor: torch.Tensor) -> str:
    shape = ", ".join(map(str, tensor.shape)) + ("," if tensor.ndim == 1 else "")
    return f"{str(tensor.dtype).removeprefix('torch.')} ({shape})"


def _function(target: Any) -> str:
    return str(target) if isinstance(target, torch._ops.OpOverload) else target.__name__


def _argument(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        items = ", ".join(map(_argument, value))
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k!r}: {_argument(v)}' for k, v in value.items())}}}"
    return value.name if isinstance(value, Node) else repr(value)
