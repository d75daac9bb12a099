"""Lower a captured model: every leaf module by its rule, everything else op by op.

The walk (``walk.py``) follows the module hierarchy that torch.export kept. Here a whole model is
lowered, several times, from its inputs to its outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch.fx import Graph

from mlxport.converter.graph.capture.capture import Captured
from mlxport.converter.graph.capture.signature import nested_result
from mlxport.converter.graph.ir.body import Body, Lowered
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.inputs import enter
from mlxport.converter.graph.ir.nodes import flat, graph_of
from mlxport.converter.graph.ir.size_reads import SizeReads
from mlxport.converter.graph.ir.sizes import Size, name_symbols
from mlxport.converter.graph.ir.value import Order, Provenance, Value, channels_last, identity
from mlxport.converter.graph.lowering.axis_orders import of_parts, unanimous
from mlxport.converter.graph.lowering.complete_body import complete
from mlxport.converter.graph.lowering.constant_folding import Folding
from mlxport.converter.graph.lowering.leaf_lowering import record_call
from mlxport.converter.graph.lowering.module_lowering import ModuleLowering
from mlxport.converter.graph.lowering.move_columns import holds, of_columns
from mlxport.converter.graph.lowering.problems import Problem, Tally, raise_gaps
from mlxport.converter.graph.lowering.walk import Preferences
from mlxport.converter.timings import stage


@stage("lower")
def lower(captured: Captured, *, channels_last_ends: bool = False) -> Lowered:
    """Lower a captured model.

    Lowered several times: the first pass shows in which axis order the consumers of each input
    and parameter want it; later ones store it that way, and are kept where it saves transposes.

    Args:
        captured: the model.
        channels_last_ends: take inputs and give outputs channels-last, without transposes.

    Raises:
        UnsupportedError: modules or ops without support, all of them listed.
    """
    lowered, tally = attempt(captured, channels_last_ends=channels_last_ends)
    raise_gaps(type(captured.model).__name__, tally.gaps())
    return lowered


def attempt(captured: Captured, *, channels_last_ends: bool = False) -> tuple[Lowered, Tally]:
    """Lower a captured model as far as it goes, and tell what was met on the way.

    Where there are problems, the lowered model goes on with what PyTorch says, and cannot run.
    """
    tally = Tally()
    folding = Folding()
    preferences: dict[Provenance, Order] = {}

    def lowered_by(preferences: Preferences) -> Lowered:
        return _Lowering(captured, preferences, channels_last_ends, tally, folding).model()

    best = lowered_by(preferences)
    for more in (unanimous, of_parts, unanimous, of_columns):
        for added in more(best.demands, preferences):
            tried = lowered_by(preferences | added)
            fewest = best.transposes + (more is unanimous)
            if tried.transposes < fewest and holds(tried, preferences | added):
                best, preferences = tried, preferences | added
                break
    return best, tally


class _Lowering(ModuleLowering):
    """A walk over a whole model, from its inputs to its outputs."""

    def model(self) -> Lowered:
        root = self.captured.root
        signature = self.lowered.signature = self.captured.signature
        placeholders = [node for node in graph_of(root).nodes if node.op == "placeholder"]
        formals, inputs = enter(signature, placeholders)
        self.lowered.size_names = name_symbols(flat(inputs))
        body = Body("", flat(inputs), formals, sizes=SizeReads(self.lowered.size_names))
        cx = self._context(body)
        arranged = [self._enter(cx, v) if isinstance(v, Value) else v for v in inputs]
        outputs = self._run(root, "", "", cx, arranged)
        leaving = [self._leave(cx, v) if isinstance(v, Value) else v for v in outputs]
        body.outputs = flat(leaving)
        complete(body, nested_result(signature.result, leaving), self.lowered.imports)
        self._keep(body)
        if body.sizes.given:
            self._report_sizes(graph_of(root), [size for size, _ in body.sizes.given])
        record_call(self.lowered, self.names, "", body.inputs, body.outputs)
        return self.lowered

    def _enter(self, cx: Context, value: Value) -> Value:
        if self.channels_last_ends and value.ndim > 2:
            value.order = channels_last(value.ndim)
        order = cx.preferred(value.provenance, value.order)
        entered = cx.arrange(replace(value, provenance=None), order)
        return replace(entered, provenance=value.provenance)

    def _leave(self, cx: Context, value: Value) -> Value:
        wanted = identity(value.ndim)
        if self.channels_last_ends and value.ndim > 2:
            wanted = channels_last(value.ndim)
        return cx.arrange(value, wanted)

    def _report_sizes(self, graph: Graph, sizes: Sequence[Size]) -> None:
        """Note that some sizes cannot be read off the inputs."""
        output = next(node for node in graph.nodes if node.op == "output")
        listed = ", ".join(map(str, sizes))
        reason = "it depends on the data, or no input's shape tells it"
        self.tally.problems[output] = Problem.at(output, f"a size ({listed})", "", reason)
