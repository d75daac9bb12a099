"""Lower a leaf module: a call of the MLX layer its rule names."""

from __future__ import annotations

import ast
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from mlxport.converter.graph.ir.body import Leaf, Lowered
from mlxport.converter.graph.ir.caches import CacheValue
from mlxport.converter.graph.ir.code import to_ast
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.naming import ModelNames, variable_name
from mlxport.converter.graph.ir.nodes import flat, layouts, results_of, with_sizes, without_sizes
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.user_files import is_mlx
from mlxport.converter.graph.ir.value import Value, logical_order
from mlxport.converter.graph.lowering.frame import Frame
from mlxport.converter.graph.lowering.layer_axes import arrange_for, for_inputs, order_after
from mlxport.converter.graph.lowering.leaf_call import LeafCall, read_call
from mlxport.converter.graph.lowering.lowering_pass import LoweringPass
from mlxport.converter.graph.lowering.move_columns import behind_flattened, is_movable
from mlxport.converter.graph.lowering.trusted_leaf import trusted_call
from mlxport.converter.plan.record import ModuleRecord
from mlxport.converter.rules.parametrization import build_spec
from mlxport.converter.rules.registry import LayerSpec

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _LayerCall:
    """The call of a layer, before it is written.

    Attributes:
        spec: what to build.
        arguments: what it is called with.
        results: all it gives.
        gives: which of its results the captured module gives; a number where it gives just one.
    """

    spec: LayerSpec
    arguments: tuple[Any, ...]
    results: Sequence[Value]
    gives: int | tuple[int, ...] = 0


def lower_leaf(state: LoweringPass, frame: Frame, inputs: Sequence[Any]) -> Any:
    """Write the call of a leaf's layer into the body of its caller; return what it gives.

    Args:
        state: the pass over the model, which gains the layer and the record of the call.
        frame: the leaf, and the body of its caller at the call.
        inputs: the values of the placeholders of its graph.

    Raises:
        Refusal: the rule does not serve it; nothing was written.
        Unsupported: the layer's file cannot travel, or its call cannot replace the module's.
    """
    path = state.captured.place(frame.path)
    call = _layer_call(state, frame, path, inputs)
    target = call.spec.target
    state.lowered.leaves.setdefault(path, Leaf(path, call.spec))
    _logger.debug("%s becomes %s", frame.path, target.__name__)
    if not is_mlx(target):
        frame.cx.bring(target)
    code = call_of(state.names, frame.owner, path, call.arguments)
    frame.cx.statements.append(Statement(tuple(call.results), code, path, call.spec.results))
    record_call(state.lowered, state.names, path, flat(call.arguments), call.results)
    if isinstance(call.gives, int):
        return with_sizes(frame.graph, call.results[call.gives])
    return with_sizes(frame.graph, tuple(call.results[i] for i in call.gives))


def _layer_call(state: LoweringPass, frame: Frame, path: str, inputs: Sequence[Any]) -> _LayerCall:
    captured, earlier = state.captured, state.lowered.leaves.get(path)
    rule, module = captured.leaves[path], captured.torch_module(frame.path)
    tensors = without_sizes(inputs)
    spec = for_inputs(earlier.spec if earlier else build_spec(rule, module), tensors)
    if rule.trusted:
        known, given = captured.arguments.get(path, ()), captured.results.get(frame.path)
        return _LayerCall(spec, *trusted_call(spec, frame.cx, module, tensors, known, given))
    if rule.auxiliary_ops:
        return _call_of_op(frame, spec, read_call(frame.graph, rule, module, inputs))
    if rule.source is torch.nn.Linear:

        def is_free() -> bool:
            return earlier is None and is_movable(captured.model, module)

        spec, taken = behind_flattened(frame.cx, spec, path, tensors[0], is_free)
        tensors = [taken]
    return _plain_call(frame, spec, path, tensors)


def _call_of_op(frame: Frame, spec: LayerSpec, read: LeafCall) -> _LayerCall:
    """Return the call of a layer whose graph has more than its op: a state of zeros, say."""
    names = [str(name) for name in tree_leaves(spec.results)]
    results = [
        Value(shape, dtype, logical_order(len(shape)), name)
        for (shape, dtype), name in zip(results_of(read.op), names, strict=True)
    ]
    arguments = tree_map(lambda value: arrange_for(spec, frame.cx, value), read.arguments)
    return _LayerCall(spec, arguments, results, read.gives)


def _plain_call(frame: Frame, spec: LayerSpec, path: str, tensors: Sequence[Value]) -> _LayerCall:
    """Return the call of a layer that takes tensors and gives one."""
    arguments = tuple(arrange_for(spec, frame.cx, value) for value in tensors)
    shape, dtype = frame.cx.results[0]
    order = order_after(spec, arguments[0], len(shape))
    return _LayerCall(
        spec, arguments, [Value(shape, dtype, order, variable_name(path, frame.cx.name))]
    )


def as_linear(
    cx: Context, table: ast.expr, x: Value, weight: Value, bias: Value | None = None
) -> Value:
    """Write the product with the table of an embedding, which is the weight of a linear layer.

    The embedding's own method stays right when the embedding is quantised.
    """
    x = cx.last(x)
    method = ast.Attribute(table, "as_linear")
    if bias is None:
        return cx.emit("method(x)", method=method, x=x, order=x.order)
    return cx.emit("method(x) + bias", method=method, x=x, bias=bias, order=x.order)


def call_of(names: ModelNames, owner: str, path: str, values: Sequence[Any]) -> ast.Call:
    """Return the call of the module at ``path`` as the class of ``owner`` writes it."""
    return ast.Call(names.reference(owner, path), [to_ast(value) for value in values], [])


def record_call(
    lowered: Lowered,
    names: ModelNames,
    path: str,
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    results: tuple[int, ...] | None = None,
) -> None:
    """Record the layouts of the values that pass a module's boundary.

    A cache is an object to a module; to the model itself it is what it holds.
    """
    if path:
        inputs = [value for value in inputs if not isinstance(value, CacheValue)]
    taken, given = (layouts(values, lowered.size_names) for values in (inputs, outputs))
    record = ModuleRecord(path, names.target(path), taken, given, results)
    lowered.records.append(record)
