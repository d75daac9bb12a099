"""Where a pass over a captured model is: a module, and the body its calls are written into."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.fx import Graph, Node

from mlxport.converter.graph.capture.leaves import plain_path
from mlxport.converter.graph.ir.body import Body
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.nodes import graph_of, name_of, results_of
from mlxport.converter.graph.ir.provenance import NodeName
from mlxport.converter.graph.ir.scopes import BodyScope, ModelScope, NodeScope
from mlxport.converter.graph.lowering.follow_dtype import DtypeFlow


@dataclass(frozen=True)
class Frame:
    """A module whose graph is walked, or called, and the body that gains its statements.

    Attributes:
        module: the captured module.
        path: its path in the captured program (``"enc@1"`` is a second call of ``"enc"``).
        owner: path of the class whose body is written.
        cx: the body's context, at the node being lowered.
        dtypes: which values of the body follow the dtype of others.
    """

    module: torch.nn.Module
    path: str
    owner: str
    cx: Context
    dtypes: DtypeFlow

    @classmethod
    def of_class(cls, module: torch.nn.Module, path: str, body: Body, model: ModelScope) -> Frame:
        """Return the frame in which the body of a class begins.

        Args:
            module: the captured module that becomes the class.
            path: its captured path.
            body: its body, with inputs and no statements yet.
            model: what the pass over the model gathers.
        """
        scope = BodyScope(body.statements)
        return cls(module, path, body.path, Context(model, scope), DtypeFlow(scope, body.inputs))

    @property
    def graph(self) -> Graph:
        """The graph of the module."""
        return graph_of(self.module)

    @property
    def node(self) -> Node:
        """The node being lowered."""
        if self.cx.node.fx is None:
            raise AssertionError(f"no node of {self.path!r} is being lowered")
        return self.cx.node.fx

    def at(self, node: Node) -> Frame:
        """Return the frame at a node of the module's graph."""
        operand = next(iter(node.all_input_nodes), node)
        key, operand_key = (NodeName(plain_path(self.path), n.name) for n in (node, operand))
        scope = NodeScope(results_of(node), name_of(node), node, key, operand_key)
        return replace(self, cx=replace(self.cx, node=scope))

    def into(self, name: str) -> Frame:
        """Return the frame of a submodule, called at this node."""
        path = f"{self.path}.{name}" if self.path else name
        return replace(self, module=self.module.get_submodule(name), path=path)
