"""Lower the modules of a captured model: to a layer, to a class of the model's own, or in place."""

from __future__ import annotations

import ast
import logging
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from mlxport.converter.graph.capture.leaves import plain_path
from mlxport.converter.graph.ir.body import Body
from mlxport.converter.graph.ir.context import Context, Statement, Unsupported
from mlxport.converter.graph.ir.naming import is_inlined, variable_name
from mlxport.converter.graph.ir.nodes import (
    bound,
    flat,
    graph_of,
    stand_in,
    with_sizes,
    without_sizes,
)
from mlxport.converter.graph.ir.size_reads import SizeReads
from mlxport.converter.graph.ir.sizes import Size
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.lowering.complete_body import complete
from mlxport.converter.graph.lowering.leaf_lowering import call_of, lower_leaf, record_call
from mlxport.converter.graph.lowering.problems import Problem
from mlxport.converter.graph.lowering.walk import Walk
from mlxport.converter.rules.registry import Refusal

_logger = logging.getLogger(__name__)


class ModuleLowering(Walk):
    """A walk that turns modules into layers and classes."""

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
        path = f"{parent_path}.{node.target}" if parent_path else str(node.target)
        place = self.captured.place(path)
        child = parent.get_submodule(str(node.target))
        inputs = bound(graph_of(child), args, kwargs)
        if place in self.captured.leaves:
            try:
                return lower_leaf(
                    self.captured,
                    self.names,
                    self.lowered,
                    cx,
                    graph_of(child),
                    path,
                    owner,
                    inputs,
                )
            except Refusal as reason:  # the ops it is made of may still be supported
                self.tally.refusals[plain_path(path)] = str(reason)
                _logger.debug("%s is lowered op by op, as its rule refuses: %s", path, reason)
            except Unsupported as reason:
                name = type(self.captured.torch_module(path)).__name__
                self.tally.problems[node] = Problem.at(node, name, path, str(reason))
                return stand_in(node, cx)
        if is_inlined(self.captured.torch_module(path)) or place in self.captured.sharing.opened:
            return self._run(child, path, owner, cx, inputs)
        return self._class(child, path, owner, cx, inputs)

    def _class(
        self,
        module: torch.nn.Module,
        path: str,
        owner: str,
        cx: Context,
        inputs: Sequence[Any],
    ) -> Any:
        """Lower a module that becomes a class; a second call must have the same body."""
        plain = self.captured.place(path)
        known = self.lowered.bodies.get(plain)
        values = flat(inputs)
        plain_call = len(values) == len(without_sizes(inputs))
        if not plain_call or (known and len(known.inputs) != len(values)):
            return self._run(module, path, owner, cx, inputs)
        places = self._places(plain, len(values))
        values = [values[i] for i in places]
        if known is not None:
            pairs = list(zip(values, known.inputs, strict=True))
            if any(value.ndim != formal.ndim for value, formal in pairs):
                return self._run(module, path, owner, cx, inputs)
            values = [cx.arrange(value, formal.order) for value, formal in pairs]
        calls, draws = len(self.lowered.records), len(self.lowered.draws)
        transposes = self.lowered.transposes
        body = self._body(module, path, values, places, inputs)
        if known is not None and known.structure() != body.structure():
            del self.lowered.records[calls:], self.lowered.draws[draws:]
            self.lowered.transposes = transposes
            return self._run(module, path, owner, cx, inputs)
        self._keep(body)
        outputs = tuple(
            Value(v.shape, v.dtype, v.order, variable_name(plain, cx.name), v.provenance, v.lineage)
            for v in body.outputs
        )
        given = [*values, *(size for size, _ in body.sizes.given)]
        code, drawing = call_of(self.names, owner, plain, given), len(self.lowered.draws) > draws
        cx.statements.append(Statement(outputs, code, plain, draws=drawing))
        results = self.captured.result_places(path, len(outputs))
        record_call(self.lowered, self.names, plain, values, outputs, results)
        if not isinstance(body.result, ast.Tuple):
            return with_sizes(graph_of(module), outputs[0])
        order = self.captured.results_order(path, len(outputs))
        in_order = tuple(outputs[order.index(i)] for i in range(len(outputs)))
        return with_sizes(graph_of(module), in_order)

    def _places(self, path: str, count: int) -> list[int]:
        """Return which captured input stands first, second … in ``forward``."""
        known = self.captured.arguments.get(path, ())
        if len(known) != count:
            return list(range(count))
        return sorted(range(count), key=lambda i: known[i].position)

    def _body(
        self,
        module: torch.nn.Module,
        path: str,
        values: Sequence[Value],
        places: Sequence[int],
        inputs: Sequence[Any],
    ) -> Body:
        """Lower the body of a class.

        Args:
            module: the captured module.
            path: its captured path.
            values: what it is called with, in the order of ``forward``.
            places: of each of them, where it stands among the captured inputs that are tensors.
            inputs: the captured inputs, sizes among them.
        """
        plain = self.captured.place(path)
        known = self.captured.arguments.get(plain, ())
        names = [f"x{i}" if len(values) > 1 else "x" for i in range(len(values))]
        if len(known) == len(values):
            names = [known[i].name for i in places]
        formal = [
            Value(v.shape, v.dtype, v.order, name, v.provenance, v.lineage)
            for v, name in zip(values, names, strict=True)
        ]
        body = Body(plain, formal, sizes=SizeReads(self.lowered.size_names))
        in_order = sorted(zip(places, formal, strict=True), key=operator.itemgetter(0))
        tensors = iter([value for _, value in in_order])
        captured = [item if isinstance(item, Size) else next(tensors) for item in inputs]
        result = self._run(module, path, plain, self._context(body), captured)
        given = flat(result)
        body.outputs = [given[i] for i in self.captured.results_order(path, len(given))]
        sized = not isinstance(result, Value) and len(without_sizes(result)) != len(result)
        single = isinstance(result, Value) or (sized and len(given) == 1)
        returned = [value.to_ast() for value in body.outputs]
        complete(body, returned[0] if single else ast.Tuple(returned), self.lowered.imports)
        return body

    def _keep(self, body: Body) -> None:
        """Keep the body of a class; each call of it counts."""
        self.lowered.bodies.setdefault(body.path, body)
        self.lowered.transposes += body.transposes
