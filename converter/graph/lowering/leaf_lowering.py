"""Lower a leaf module: a call of the MLX layer its rule names."""

from __future__ import annotations

import ast
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph
from torch.utils._pytree import tree_leaves, tree_map

from mlxport.converter.graph.capture.capture import Captured
from mlxport.converter.graph.ir.body import Leaf, Lowered
from mlxport.converter.graph.ir.code import to_ast
from mlxport.converter.graph.ir.context import Context, Statement
from mlxport.converter.graph.ir.naming import Names, variable_name
from mlxport.converter.graph.ir.nodes import flat, layouts, results_of, with_sizes, without_sizes
from mlxport.converter.graph.ir.user_files import is_mlx
from mlxport.converter.graph.ir.value import Value, identity
from mlxport.converter.graph.lowering.layer_axes import arrange_for, check_batched, order_after
from mlxport.converter.graph.lowering.leaf_call import read_call
from mlxport.converter.graph.lowering.move_columns import behind_flattened, is_movable
from mlxport.converter.graph.lowering.vouched_leaf import vouched_call
from mlxport.converter.plan.record import ModuleRecord
from mlxport.converter.rules.parametrization import build_spec

_logger = logging.getLogger(__name__)


def lower_leaf(
    captured: Captured,
    names: Names,
    lowered: Lowered,
    cx: Context,
    graph: Graph,
    path: str,
    owner: str,
    inputs: Sequence[Any],
) -> Any:
    """Write the call of a leaf into the body of the class ``owner``; return what it gives.

    Args:
        captured: the captured model.
        names: where its modules stand in the MLX model.
        lowered: gains the layer and the record of the call.
        cx: the body and the node being lowered.
        graph: the captured graph of the leaf.
        path: its captured path.
        owner: path of the class whose body calls it.
        inputs: what stands for the placeholders of its graph.

    Raises:
        Refusal: the rule does not serve it; nothing was written.
        Unsupported: the layer cannot stand in a converted model, or its call not for the module's.
    """
    plain = captured.place(path)
    rule = captured.leaves[plain]
    module = captured.torch_module(path)
    earlier = lowered.leaves.get(plain)
    spec = earlier.spec if earlier else build_spec(rule, module)
    tensors = without_sizes(inputs)
    check_batched(spec, tensors)
    gives: int | tuple[int, ...] = 0
    if rule.trusted:
        known, given = captured.arguments.get(plain, ()), captured.results.get(path)
        arguments, results, gives = vouched_call(spec, cx, module, tensors, known, given)
    elif rule.auxiliary_ops:
        read = read_call(graph, rule, module, inputs)
        shapes = results_of(read.op)
        arguments = tree_map(lambda value: arrange_for(spec, cx, value), read.arguments)
        labels = [str(name) for name in tree_leaves(spec.results)]
        results = [
            Value(shape, dtype, identity(len(shape)), name)
            for (shape, dtype), name in zip(shapes, labels, strict=True)
        ]
        gives = read.gives
    else:
        if rule.source is torch.nn.Linear:
            spec, taken = behind_flattened(
                cx,
                spec,
                plain,
                tensors[0],
                lambda: earlier is None and is_movable(captured.model, module),
            )
            tensors = [taken]
        arguments = tuple(arrange_for(spec, cx, value) for value in tensors)
        shape, dtype = cx.results[0]
        order = order_after(spec, arguments[0], len(shape))
        results = [Value(shape, dtype, order, variable_name(plain, cx.name))]
    lowered.leaves.setdefault(plain, Leaf(plain, spec))
    _logger.debug("%s becomes %s", path, spec.target.__name__)
    if not is_mlx(spec.target):
        cx.bring(spec.target)
    code = call_of(names, owner, plain, arguments)
    cx.statements.append(Statement(tuple(results), code, plain, spec.results))
    record_call(lowered, names, plain, flat(arguments), results)
    if isinstance(gives, int):
        return with_sizes(graph, results[gives])
    return with_sizes(graph, tuple(results[i] for i in gives))


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


def call_of(names: Names, owner: str, path: str, values: Sequence[Any]) -> ast.Call:
    """Return the call of the module at ``path`` as the class of ``owner`` writes it."""
    return ast.Call(names.reference(owner, path), [to_ast(value) for value in values], [])


def record_call(
    lowered: Lowered,
    names: Names,
    path: str,
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    results: tuple[int, ...] | None = None,
) -> None:
    """Record the layouts of the values that pass a module's boundary."""
    taken, given = (layouts(values, lowered.size_names) for values in (inputs, outputs))
    record = ModuleRecord(path, names.target(path), taken, given, results)
    lowered.records.append(record)
