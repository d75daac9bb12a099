"""Walk the graph of a captured module: ops by their handlers, modules by what they become.

Problems are collected, never raised one by one: the walk goes on with what PyTorch says a node
gives, and all of them are reported.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from mlxport.converter.graph.capture.leaves import plain_path
from mlxport.converter.graph.capture.state.state_writes import WRITE
from mlxport.converter.graph.ir.caches import join_layer, update_layer
from mlxport.converter.graph.ir.context import Unsupported
from mlxport.converter.graph.ir.nodes import results_of, stand_in
from mlxport.converter.graph.ir.sizes import is_symbolic, symbolic
from mlxport.converter.graph.lowering.constants.narrowing import wide_boundary
from mlxport.converter.graph.lowering.frame import Frame
from mlxport.converter.graph.lowering.lowering_pass import LoweringPass
from mlxport.converter.graph.lowering.module_lowering import ModuleLowering
from mlxport.converter.graph.lowering.op_lowering import OpLowering
from mlxport.converter.graph.lowering.problems import Problem
from mlxport.converter.graph.ops.caches import layer_of, lower_update


class GraphWalk:
    """Lowers graphs, node by node; a called module's graph is walked in its turn.

    Args:
        state: the pass over the model.
    """

    def __init__(self, state: LoweringPass) -> None:
        self.state = state
        self.ops = OpLowering(state)
        self.modules = ModuleLowering(state, self.run)

    def run(self, frame: Frame, inputs: Sequence[Any]) -> Any:
        """Lower the graph of a module into the body of its frame; return what it gives.

        Args:
            frame: the module and the body.
            inputs: the values of the placeholders of its graph.
        """
        self.state.tally.walked.add(plain_path(frame.path))
        self.state.folding.of(
            frame.graph, lambda node: self.state.arrays.constant(frame, str(node.target))
        )
        if not frame.path:
            self._check_boundary(frame)
        waiting = iter(inputs)
        env: dict[Node, Any] = {}
        for node in frame.graph.nodes:
            if node.op == "placeholder":
                env[node] = next(waiting)
            elif node.op == "output":
                return torch.fx.node.map_arg(node.args[0], env.__getitem__)
            else:
                env[node] = self._node(frame.at(node), env)
        raise AssertionError(f"the graph of {frame.path!r} has no output")

    def _node(self, frame: Frame, env: Mapping[Node, Any]) -> Any:
        node = frame.node
        arguments: Any = torch.fx.node.map_arg((node.args, node.kwargs), env.__getitem__)
        args, kwargs = arguments
        if node.op == "get_attr":
            return self._array(frame)
        if node.op == "call_module":
            self._check_boundary(frame.into(str(node.target)))
            return self.modules.lower(frame, *frame.dtypes.followed(arguments, called=True))
        if node.target is WRITE and (buffer := node.all_input_nodes[0]).op == "get_attr":
            self.state.arrays.write(frame, str(buffer.target), args)
            return args[0]
        if node.target is operator.getitem:
            constant = self.ops.constant(frame)
            return args[0][args[1]] if constant is None else constant
        if node.target is join_layer:
            return layer_of(args[0], results_of(node)[0][0])
        if node.target is update_layer:
            return lower_update(frame.cx, *args)
        if is_symbolic(node):
            return symbolic(node.meta["val"])
        return self.ops.lower(frame, args, kwargs)

    def _check_boundary(self, frame: Frame) -> None:
        """Note what comes into a module or leaves it in a dtype that MLX does not compute in."""
        for node, reason in wide_boundary(frame.graph):
            end = f"argument {node.target}" if node.op == "placeholder" else "a result"
            problem = Problem.at(node, end, frame.path, reason)
            self.state.tally.problems[node] = problem

    def _array(self, frame: Frame) -> Any:
        name = str(frame.node.target)
        found = operator.attrgetter(name)(frame.module) if _has(frame.module, name) else None
        if isinstance(found, torch.nn.Module):  # the sub-graph of a higher-order op
            return found
        constant = self.ops.constant(frame)
        if constant is not None:
            return constant
        try:
            return self.state.arrays.read(frame, name)
        except Unsupported as reason:
            problem = Problem.at(frame.node, name, frame.path, str(reason))
            self.state.tally.problems[frame.node] = problem
            return stand_in(frame.node, frame.cx)


def _has(module: torch.nn.Module, name: str) -> bool:
    try:
        operator.attrgetter(name)(module)
    except AttributeError:
        return False
    return True
