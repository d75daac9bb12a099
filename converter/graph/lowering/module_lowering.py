"""Lower the call of a module: to a layer, to a class of the emitted model, or written in place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from mlxport.converter.graph.capture.leaves import plain_path
from mlxport.converter.graph.ir.context import Unsupported
from mlxport.converter.graph.ir.naming import is_inlined
from mlxport.converter.graph.ir.nodes import bound, stand_in
from mlxport.converter.graph.lowering.class_lowering import ClassLowering
from mlxport.converter.graph.lowering.frame import Frame
from mlxport.converter.graph.lowering.leaf_lowering import lower_leaf
from mlxport.converter.graph.lowering.lowering_pass import LoweringPass
from mlxport.converter.graph.lowering.problems import Problem
from mlxport.converter.rules.registry import Refusal

_logger = logging.getLogger(__name__)


class ModuleLowering:
    """Decides what a called module becomes.

    Args:
        state: the pass over the model.
        run: lowers the graph of a module into the body of its frame.
    """

    def __init__(self, state: LoweringPass, run: Callable[[Frame, Sequence[Any]], Any]) -> None:
        self.state = state
        self.run = run
        self.classes = ClassLowering(state, run)

    def lower(self, caller: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what the module called at a frame's node gives.

        Args:
            caller: the calling module and its body, at the call.
            args: positional arguments of the call, values in place of nodes.
            kwargs: the same by keyword.
        """
        captured, tally = self.state.captured, self.state.tally
        frame = caller.into(str(caller.node.target))
        place, module = captured.place(frame.path), captured.torch_module(frame.path)
        inputs = bound(frame.graph, args, kwargs)
        if place in captured.leaves:
            try:
                return lower_leaf(self.state, frame, inputs)
            except Refusal as reason:  # the ops it is made of may still be supported
                _logger.debug("%s is lowered op by op, as its rule refuses: %s", frame.path, reason)
                tally.refusals[plain_path(frame.path)] = str(reason)
            except Unsupported as reason:
                problem = Problem.at(frame.node, type(module).__name__, frame.path, str(reason))
                tally.problems[frame.node] = problem
                return stand_in(frame.node, frame.cx)
        if place in captured.sharing.opened:
            why = "it uses what stands outside of itself, where its caller sees both"
            self.state.lowered.inlined[frame.path] = why
            return self.run(frame, inputs)
        if is_inlined(module):
            return self.run(frame, inputs)
        return self.classes.lower(frame, inputs)
