"""Lower one op: as a constant where it is one, or else by its handler."""

from __future__ import annotations

import logging
from typing import Any

from mlxport.converter.graph.capture.explain_failure import is_higher_order, why_refused
from mlxport.converter.graph.ir.context import Unsupported
from mlxport.converter.graph.ir.nodes import check_result, flat, stand_in, where_static
from mlxport.converter.graph.ir.printing import type_text
from mlxport.converter.graph.ir.sizes import NotStatic
from mlxport.converter.graph.lowering.constants.narrowing import (
    check_narrowing,
    in_narrower_dtypes,
    is_wide,
)
from mlxport.converter.graph.lowering.frame import Frame
from mlxport.converter.graph.lowering.leaf_lowering import as_linear
from mlxport.converter.graph.lowering.lowering_pass import LoweringPass
from mlxport.converter.graph.lowering.problems import THE_MODEL, Problem
from mlxport.converter.graph.ops.registry import OPS

_logger = logging.getLogger(__name__)


class OpLowering:
    """Lowers ops one by one, and notes those that cannot be.

    Args:
        state: the pass over the model.
    """

    def __init__(self, state: LoweringPass) -> None:
        self.state = state

    def lower(self, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what the op at a frame's node gives; what PyTorch says where it has no handler.

        Args:
            frame: the body, at the node.
            args: positional arguments of the op, values in place of nodes.
            kwargs: the same by keyword.
        """
        if str(frame.node.target) == "aten.linear.default":
            table = self.state.arrays.table(args[1], frame.owner)
            if table is not None:
                return as_linear(frame.cx, table, *args)
        node, tally = frame.node, self.state.tally
        name, module = str(node.target), frame.path or THE_MODEL
        if is_higher_order(node):
            name, why = why_refused(str(node.target))
            tally.problems[node] = Problem.at(node, name, frame.path, why)
            return stand_in(node, frame.cx)
        tally.ops[node] = name
        try:
            result = self._lowered(frame, name, args, kwargs)
        except Unsupported as reason:
            said = where_static(node, reason) if isinstance(reason, NotStatic) else reason
            _logger.debug("%s in %s is not supported: %s", name, module, said)
            tally.problems[node] = Problem.at(node, name, frame.path, str(said))
            return stand_in(node, frame.cx)
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug(
                "%s in %s gives %s", name, module, ", ".join(map(type_text, flat(result)))
            )
        return result

    def constant(self, frame: Frame) -> Any:
        """Return the value of a frame's node that is no op, where it is a constant; else None."""
        known = self.state.folding.known[frame.graph].get(frame.node)
        if known is None:
            return None
        try:
            return self.state.arrays.folded(frame, known)
        except Unsupported as reason:
            name = str(frame.node.target)
            problem = Problem.at(frame.node, name, frame.path, str(reason))
            self.state.tally.problems[frame.node] = problem
            return stand_in(frame.node, frame.cx)

    def _lowered(
        self, frame: Frame, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        node, arrays = frame.node, self.state.arrays
        constant = self.state.folding.known[node.graph].get(node)
        folded = None if constant is None else arrays.folded(frame, constant)
        if folded is not None:
            return folded
        if name not in OPS:
            raise Unsupported("no MLX handler")
        args = arrays.with_number(node.target, args)
        if is_wide(node):
            check_narrowing(node)
            args, kwargs = in_narrower_dtypes((args, kwargs))
            self.state.lowered.narrowed[Problem.at(node, name, frame.path, "").line] = None
        args, kwargs = frame.dtypes.followed((args, kwargs))
        try:
            result = OPS[name].handler(frame.cx, *args, **kwargs)
        except Unsupported as reason:
            if constant is None or constant.tensor is None:
                raise
            _logger.debug("%s is folded, as %s", name, reason)
            return arrays.kept(frame, constant.tensor)
        check_result(node, result)
        return result
