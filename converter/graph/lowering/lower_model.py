"""One pass over a captured model: from its inputs through its graph to its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch.fx import Graph

from mlxport.converter.graph.capture.signature import nested_result
from mlxport.converter.graph.ir.body import Body, Lowered
from mlxport.converter.graph.ir.caches import CacheValue
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.inputs import input_values
from mlxport.converter.graph.ir.nodes import flat, graph_of
from mlxport.converter.graph.ir.size_reads import SizeReads
from mlxport.converter.graph.ir.sizes import Size, name_symbols
from mlxport.converter.graph.ir.value import Value, channels_last, logical_order
from mlxport.converter.graph.lowering.complete_body import complete
from mlxport.converter.graph.lowering.frame import Frame
from mlxport.converter.graph.lowering.graph_walk import GraphWalk
from mlxport.converter.graph.lowering.leaf_lowering import record_call
from mlxport.converter.graph.lowering.lowering_pass import LoweringPass
from mlxport.converter.graph.lowering.problems import Problem, Tally
from mlxport.converter.graph.ops.caches import given_back, import_cache


def lower_model(state: LoweringPass, *, channels_last_ends: bool = False) -> Lowered:
    """Lower a captured model in one pass.

    Args:
        state: the pass, at its start.
        channels_last_ends: take inputs and give outputs channels-last, without transposes.
    """
    lowered, root = state.lowered, state.captured.root
    signature = lowered.signature = state.captured.signature
    lowered.fixed, lowered.unchecked = state.captured.fixed, state.captured.unchecked
    placeholders = [node for node in graph_of(root).nodes if node.op == "placeholder"]
    cached = lowered.cached = state.captured.cached
    formals, inputs = input_values(signature, placeholders, cached.name if cached else "")
    if cached is not None:
        import_cache(lowered)
    lowered.size_names = name_symbols(flat(inputs))
    body = Body("", flat(inputs), formals, sizes=SizeReads(lowered.size_names))
    frame = Frame.of_class(root, "", body, lowered.scope)
    last = channels_last_ends
    entered = [_entered(frame.cx, v, last) if isinstance(v, Value) else v for v in inputs]
    outputs = GraphWalk(state).run(frame, entered)
    leaving = [
        _leaving(frame.cx, v, last) if isinstance(v, Value) and not isinstance(v, CacheValue) else v
        for v in outputs
    ]
    omitted: tuple[int, ...] = ()
    if cached is not None:
        leaving, omitted = given_back(cached, leaving), cached.places
    body.outputs = flat(leaving)
    complete(body, nested_result(signature.result, leaving, omitted), lowered.scope.imports)
    lowered.keep(body)
    if body.sizes.given:
        _report_sizes(state.tally, graph_of(root), [size for size, _ in body.sizes.given])
    record_call(lowered, state.names, "", body.inputs, body.outputs)
    return lowered


def _entered(cx: Context, value: Value, last: bool) -> Value:
    """Return an input of the model in the order its consumers prefer."""
    if isinstance(value, CacheValue):
        return value
    if last and value.ndim > 2:
        value.order = channels_last(value.ndim)
    order = cx.preferred(value.provenance, value.order)
    entered = cx.arrange(replace(value, provenance=None), order)
    return replace(entered, provenance=value.provenance)


def _leaving(cx: Context, value: Value, last: bool) -> Value:
    """Return an output of the model in the order its caller expects."""
    wanted = channels_last(value.ndim) if last and value.ndim > 2 else logical_order(value.ndim)
    return cx.arrange(value, wanted)


def _report_sizes(tally: Tally, graph: Graph, sizes: Sequence[Size]) -> None:
    """Note that some sizes cannot be read off the inputs."""
    output = next(node for node in graph.nodes if node.op == "output")
    listed = ", ".join(map(str, sizes))
    reason = "it depends on the data, or no input's shape tells it"
    tally.problems[output] = Problem.at(output, f"a size ({listed})", "", reason)
