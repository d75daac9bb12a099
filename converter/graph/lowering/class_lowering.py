"""Lower a module to a class of the emitted model: its body, and a call of it.

Another call of the module is a call of the same class where it has the same body, and is written
in place where it has not.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import Graph, Node

from mlxport.converter.graph.ir.body import Body
from mlxport.converter.graph.ir.caches import CacheValue
from mlxport.converter.graph.ir.naming import variable_name
from mlxport.converter.graph.ir.nodes import flat, with_sizes, without_sizes
from mlxport.converter.graph.ir.size_reads import SizeReads
from mlxport.converter.graph.ir.sizes import Size
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.lowering.complete_body import complete
from mlxport.converter.graph.lowering.frame import Frame
from mlxport.converter.graph.lowering.leaf_lowering import call_of, record_call
from mlxport.converter.graph.lowering.lowering_pass import LoweringPass
from mlxport.converter.graph.ops.caches import (
    arguments_with_caches,
    formal_layer,
    formals_with_caches,
)


class ClassLowering:
    """Lowers modules that become classes.

    Args:
        state: the pass over the model.
        run: lowers the graph of a module into the body of its frame.
    """

    def __init__(self, state: LoweringPass, run: Callable[[Frame, Sequence[Any]], Any]) -> None:
        self.state = state
        self.run = run

    def lower(self, frame: Frame, inputs: Sequence[Any]) -> Any:
        """Return what a call of the module gives, written into the body of the caller.

        Args:
            frame: the module, and the body of its caller at the call.
            inputs: the values of the placeholders of its graph.
        """
        lowered = self.state.lowered
        path = self.state.captured.place(frame.path)
        known = lowered.bodies.get(path)
        values = self._in_order_of_forward(path, inputs)
        if _passes_lists(frame.graph):
            return self._in_place(frame, inputs, "it takes or gives several tensors as one")
        if not _gives_tensors(frame.graph):
            return self._in_place(frame, inputs, "it gives no tensor that is read")
        if values is None:
            return self._in_place(frame, inputs, "it is called with sizes, not with tensors alone")
        if known is not None:
            if [v.ndim for v in values] != [v.ndim for v in known.inputs]:
                reason = "its first call is given tensors with other numbers of axes"
                return self._in_place(frame, inputs, reason)
            pairs = zip(values, known.inputs, strict=True)
            values = [
                v if isinstance(v, CacheValue) else frame.cx.arrange(v, formal.order)
                for v, formal in pairs
            ]
        calls, draws, transposes = (
            len(lowered.records),
            len(lowered.scope.draws),
            lowered.transposes,
        )
        body = self._body(frame, path, values, inputs)
        if known is not None and known.structure() != body.structure():
            del lowered.records[calls:], lowered.scope.draws[draws:]
            lowered.transposes = transposes
            reason = "it computes something else than in its first call"
            return self._in_place(frame, inputs, reason)
        lowered.keep(body)
        return self._called(frame, body, values, drawing=len(lowered.scope.draws) > draws)

    def _in_place(self, frame: Frame, inputs: Sequence[Any], reason: str) -> Any:
        """Write what a call computes into the body of the caller."""
        self.state.lowered.inlined[frame.path] = reason
        return self.run(frame, inputs)

    def _in_order_of_forward(self, path: str, inputs: Sequence[Any]) -> list[Value] | None:
        """Return the tensors among some inputs; None where something else is among them."""
        values = flat(inputs)
        if len(values) != len(without_sizes(inputs)):
            return None
        return [values[i] for i in self._positions(path, len(values))]

    def _positions(self, path: str, count: int) -> list[int]:
        """Return which captured input stands first, second … in ``forward``."""
        known = self.state.captured.arguments.get(path, ())
        if len(known) != count:
            return list(range(count))
        return sorted(range(count), key=lambda i: known[i].position)

    def _body(
        self, frame: Frame, path: str, values: Sequence[Value], inputs: Sequence[Any]
    ) -> Body:
        """Lower the body of a class.

        Args:
            frame: the module.
            path: of the torch module that the class is for.
            values: what it is called with, in the order of ``forward``.
            inputs: the captured inputs, sizes among them.
        """
        captured, lowered = self.state.captured, self.state.lowered
        positions = self._positions(path, len(values))
        names = self._argument_names(path, positions)
        formals = [
            formal_layer(v)
            if isinstance(v, CacheValue)
            else Value(v.shape, v.dtype, v.order, name, v.provenance, v.lineage)
            for v, name in zip(values, names, strict=True)
        ]
        body = Body(
            path, formals, formals_with_caches(formals), sizes=SizeReads(lowered.size_names)
        )
        in_order = sorted(zip(positions, formals, strict=True), key=operator.itemgetter(0))
        tensors = iter([value for _, value in in_order])
        given = [item if isinstance(item, Size) else next(tensors) for item in inputs]
        inner = Frame.of_class(frame.module, frame.path, body, lowered.scope)
        result = self.run(inner, given)
        gives = flat(result)
        body.outputs = [gives[i] for i in captured.results_order(frame.path, len(gives))]
        sized = not isinstance(result, Value) and len(without_sizes(result)) != len(result)
        single = isinstance(result, Value) or (sized and len(gives) == 1)
        returned = [value.to_ast() for value in body.outputs]
        complete(body, returned[0] if single else ast.Tuple(returned), lowered.scope.imports)
        return body

    def _argument_names(self, path: str, positions: Sequence[int]) -> list[str]:
        known, count = self.state.captured.arguments.get(path, ()), len(positions)
        if len(known) == count:
            return [known[i].name for i in positions]
        return ["x"] if count == 1 else [f"x{i}" for i in range(count)]

    def _called(self, frame: Frame, body: Body, values: Sequence[Value], *, drawing: bool) -> Any:
        """Write the call of a class; return what the captured module gives."""
        captured, names, lowered = self.state.captured, self.state.names, self.state.lowered
        outputs = tuple(
            Value(
                v.shape,
                v.dtype,
                v.order,
                variable_name(body.path, frame.cx.name),
                v.provenance,
                v.lineage,
            )
            for v in body.outputs
        )
        given = [*arguments_with_caches(values), *(size for size, _ in body.sizes.given)]
        code = call_of(names, frame.owner, body.path, given)
        reads, writes = body.reads, body.writes
        frame.cx.statements.append(
            Statement(outputs, code, body.path, draws=drawing, reads=reads, writes=writes)
        )
        results = captured.result_places(frame.path, len(outputs))
        record_call(lowered, names, body.path, values, outputs, results)
        if not isinstance(body.result, ast.Tuple):
            return with_sizes(frame.graph, outputs[0])
        order = captured.results_order(frame.path, len(outputs))
        in_order = tuple(outputs[order.index(i)] for i in range(len(outputs)))
        return with_sizes(frame.graph, in_order)


def _gives_tensors(graph: Graph) -> bool:
    *_, output = graph.nodes
    return bool(output.args[0])


def _passes_lists(graph: Graph) -> bool:
    """Whether a list of tensors (what an op splits another into) passes a module's boundary."""
    *_, output = graph.nodes
    given = output.args[0] if isinstance(output.args[0], (list, tuple)) else ()
    taken = [node for node in graph.nodes if node.op == "placeholder"]
    nodes = [node for node in (*taken, *given) if isinstance(node, Node)]
    return any(isinstance(node.meta.get("val"), (list, tuple)) for node in nodes)
