"""Walk the graphs of a captured model: every op by its handler, every module by what it becomes.

Problems are collected, never raised one by one: the walk goes on with what PyTorch says a node
gives, and all of them are reported.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from mlxport.converter.graph.capture.capture import Captured
from mlxport.converter.graph.capture.leaves import plain_path
from mlxport.converter.graph.ir.body import Body, Lowered
from mlxport.converter.graph.ir.context import Context, Unsupported
from mlxport.converter.graph.ir.naming import Names
from mlxport.converter.graph.ir.nodes import (
    check_result,
    flat,
    graph_of,
    name_of,
    results_of,
    stand_in,
    where_static,
)
from mlxport.converter.graph.ir.printing import type_text
from mlxport.converter.graph.ir.sizes import NotStatic, is_symbolic, symbolic
from mlxport.converter.graph.ir.value import Order, Provenance, Value
from mlxport.converter.graph.lowering.arrays import Arrays
from mlxport.converter.graph.lowering.axis_orders import name_of_node
from mlxport.converter.graph.lowering.constant_folding import Folding
from mlxport.converter.graph.lowering.follow_dtype import following
from mlxport.converter.graph.lowering.leaf_lowering import as_linear
from mlxport.converter.graph.lowering.problems import THE_MODEL, Problem, Tally
from mlxport.converter.graph.ops.registry import OPS

_logger = logging.getLogger(__name__)

Preferences = Mapping[Provenance, Order]


class Walk:
    """One pass over the captured hierarchy.

    Args:
        captured: the model.
        preferences: provenance of an input or array -> the axis order to store it in.
        last: take inputs and give outputs channels-last, without transposes.
        tally: gains what is met on the way.
        folding: what is the same at every call, kept from pass to pass.
    """

    def __init__(
        self,
        captured: Captured,
        preferences: Preferences,
        last: bool,
        tally: Tally,
        folding: Folding,
    ) -> None:
        self.captured = captured
        self.preferences = preferences
        self.channels_last_ends = last
        self.names = Names(captured.model)
        self.lowered = Lowered()
        self.arrays = Arrays(captured, self.names, self.lowered, preferences)
        self.tally = tally
        self.folding = folding

    def _context(self, body: Body) -> Context:
        return Context(
            statements=body.statements,
            imports=self.lowered.imports,
            demands=self.lowered.demands,
            own=self.lowered.own,
            inputs=body.inputs,
            preferences=self.preferences,
            draws=self.lowered.draws,
            above_one=self.lowered.above_one,
        )

    def _run(
        self, module: torch.nn.Module, path: str, owner: str, cx: Context, inputs: Sequence[Any]
    ) -> Any:
        """Lower the graph of the module at ``path`` into the body of the class ``owner``."""
        self.tally.walked.add(plain_path(path))
        self.folding.of(
            graph_of(module), lambda node: self.arrays.constant(str(node.target), module, path)
        )
        waiting = iter(inputs)
        env: dict[Node, Any] = {}
        for node in graph_of(module).nodes:
            if node.op == "placeholder":
                env[node] = next(waiting)
            elif node.op == "output":
                return torch.fx.node.map_arg(node.args[0], env.__getitem__)
            else:
                env[node] = self._node(node, module, path, owner, cx, env)
        raise AssertionError(f"the graph of {path!r} has no output")

    def _node(
        self,
        node: Node,
        module: torch.nn.Module,
        path: str,
        owner: str,
        cx: Context,
        env: Mapping[Node, Any],
    ) -> Any:
        arguments: Any = torch.fx.node.map_arg((node.args, node.kwargs), env.__getitem__)
        args, kwargs = arguments
        cx.results, cx.name, cx.node = results_of(node), name_of(node), node
        cx.place = name_of_node(node, path)
        cx.source = name_of_node(next(iter(node.all_input_nodes), node), path)
        if node.op == "get_attr":
            return self._array(node, module, path, owner, cx)
        if node.op == "call_module":
            args, kwargs = following(cx, arguments, called=True)
            return self._module(node, module, path, owner, cx, args, kwargs)
        if node.target is operator.getitem:
            return args[0][args[1]]
        if is_symbolic(node):
            return symbolic(node.meta["val"])
        if str(node.target) == "aten.linear.default":
            table = self.arrays.table(args[1], owner)
            if table is not None:
                return as_linear(cx, table, *args)
        return self._op(node, path, owner, cx, args, kwargs)

    def _op(
        self,
        node: Node,
        path: str,
        owner: str,
        cx: Context,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        name = self.tally.ops[node] = str(node.target)
        fixed = self.folding.known[node.graph].get(node)
        try:
            folded = self.arrays.folded(cx, fixed, owner) if fixed is not None else None
            if folded is not None:
                return folded
            if name not in OPS:
                raise Unsupported("no MLX handler")
            args = self.arrays.with_number(node.target, args)
            args, kwargs = following(cx, (args, kwargs))
            result = OPS[name].handler(cx, *args, **kwargs)
            check_result(node, result)
        except Unsupported as reason:
            told = where_static(node, reason) if isinstance(reason, NotStatic) else reason
            self.tally.problems[node] = Problem.at(node, name, path, str(told))
            _logger.debug("%s in %s is not supported: %s", name, path or THE_MODEL, told)
            return stand_in(node, cx)
        if _logger.isEnabledFor(logging.DEBUG):
            given = ", ".join(map(type_text, flat(result)))
            _logger.debug("%s in %s gives %s", name, path or THE_MODEL, given)
        return result

    def _array(
        self, node: Node, module: torch.nn.Module, path: str, owner: str, cx: Context
    ) -> Value:
        try:
            return self.arrays.read(cx, str(node.target), module, path, owner)
        except Unsupported as reason:
            self.tally.problems[node] = Problem.at(node, str(node.target), path, str(reason))
            value: Value = stand_in(node, cx)
            return value

    def _module(
        self,
        node: Node,
        parent: torch.nn.Module,
        parent_path: str,
        owner: str,
        cx: Context,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Lower a call of a module."""
        raise NotImplementedError
