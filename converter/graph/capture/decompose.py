"""Decompose a captured program to ops that have a handler, or none to decompose to.

torch.export's own decomposition traces the whole program again, which takes as long as capturing
it did. Where a program writes to nothing and only a few ops of it are to be decomposed, as in most
networks, those are replaced one by one, and all else stays as it was captured.
"""

from __future__ import annotations

import copy
import logging
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch._ops import OpOverload
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.export import ExportedProgram, default_decompositions
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    OutputKind,
    TensorArgument,
)
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves, tree_map_only

_logger = logging.getLogger(__name__)

_aten = torch.ops.aten
_AUTOGRAD = torch._C.DispatchKey.Autograd  # what Python has for it, torch.export traces

_Table: TypeAlias = Mapping[Any, Callable[..., Any]]

_KINDS = {
    InputKind.USER_INPUT,
    InputKind.PARAMETER,
    InputKind.BUFFER,
    InputKind.CONSTANT_TENSOR,
    OutputKind.USER_OUTPUT,
}


def decompositions(handled: Collection[str]) -> Any:
    """Return torch.export's table of decompositions without those of the ops with a handler."""
    table = default_decompositions()
    for op in list(table.keys()):
        if str(op) in handled:
            table.pop(op)
    return table


def decompose(program: ExportedProgram, handled: Collection[str]) -> ExportedProgram:
    """Return a captured program decomposed to ops that have a handler, or none to decompose to.

    Args:
        program: what torch.export captured; stays as it is.
        handled: names of the ATen ops that are not to be decomposed.

    Raises:
        Exception: whatever torch raises where it cannot decompose the program.
    """
    table = decompositions(handled)
    if obstacle := _obstacle(program, table):
        _logger.debug("decomposed by torch.export, as it has %s", obstacle)
        return _by_torch(program, table)
    try:
        return _replaced(program)
    except Exception:  # whatever torch says of an op on fake tensors
        _logger.debug("decomposed by torch.export, as its ops do not go one by one", exc_info=True)
        return _by_torch(program, table)


def _by_torch(program: ExportedProgram, table: Any) -> ExportedProgram:
    decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def _obstacle(program: ExportedProgram, table: _Table) -> str:
    """Return what of a program only torch.export's own decomposition can take; empty if nothing."""
    signature = program.graph_signature
    kinds = {spec.kind for spec in [*signature.input_specs, *signature.output_specs]}
    if others := sorted(kind.name for kind in kinds - _KINDS):
        return f"arguments or results of another kind: {', '.join(others)}"
    if program.range_constraints or _has_open_sizes(_fake_mode(program)):
        return "sizes with bounds"
    choice = {*default_decompositions().keys()}
    for node in program.graph.nodes:
        if node.op not in ("placeholder", "call_function", "output"):
            return f"a node of kind {node.op}"
        if not all(map(_is_static, tree_leaves(node.meta.get("val")))):
            return f"{node.name}, which is no tensor of fixed size"
        if node.op == "call_function" and (why := _why_not(node, table, choice)):
            return why
    return ""


def _has_open_sizes(mode: FakeTensorMode) -> bool:
    """Tell whether sizes were open anywhere while a program was captured."""
    environment: Any = mode.shape_env
    return bool(environment and environment.var_to_range.keys() - environment.replacements.keys())


def _is_static(value: Any) -> bool:
    if isinstance(value, FakeTensor):
        return value.layout is torch.strided and all(type(size) is int for size in value.shape)
    return value is None


def _why_not(node: Node, table: _Table, choice: Collection[Any]) -> str:
    """Say why an op is torch.export's to decompose; ``choice`` has those that one may keep."""
    op: Any = node.target
    if op is operator.getitem:
        return ""
    if not isinstance(op, OpOverload):
        return f"{op}, which is no op of tensors"
    if op._schema.is_mutable or op in _OTHERWISE_BY_TORCH:
        return f"{op}, which writes, or torch.export writes otherwise"
    if op in _REPLACEMENTS:
        return "" if _REPLACEMENTS[op][0](node) else f"{op} as it is called here"
    if op in table or (op not in choice if op._can_decompose() else _AUTOGRAD in op.py_kernels):
        return f"{op}, which is decomposed"
    return ""


def _replaced(program: ExportedProgram) -> ExportedProgram:
    """Return a program with some of its ops replaced by what they decompose to.

    Raises:
        ValueError: two of its nodes would have one name, or what draws is not used.
        Exception: whatever torch raises of an op on fake tensors.
    """
    graph = Graph()
    nodes: dict[Node, Node] = {}
    results: dict[Any, Node] = {}
    mode = _fake_mode(program)
    for node in program.graph.nodes:
        if node.op != "call_function":
            nodes[node] = graph.node_copy(node, nodes.__getitem__)
            continue
        args, kwargs = map_arg((node.args, node.kwargs), nodes.__getitem__)
        writer = _Writer(graph, node, mode, results)
        if node.target is operator.getitem:
            nodes[node] = results[args]
        elif node.target in _REPLACEMENTS:
            nodes[node] = _REPLACEMENTS[node.target][1](writer, *args, **kwargs)
        else:
            nodes[node] = writer.call(node.target, *args, **kwargs)
    graph.eliminate_dead_code()
    if any(not node.users for node in graph.nodes if node.op == "call_function"):
        raise ValueError("a draw that is not used, which torch.export leaves out")
    for placeholder in program.graph.find_nodes(op="placeholder"):
        nodes[placeholder].name = placeholder.name  # the signature's
    if len({node.name for node in graph.nodes}) < len(graph.nodes):
        raise ValueError("two nodes of one name")
    root = GraphModule(program.graph_module, graph)
    root.meta.update(program.graph_module.meta)
    return ExportedProgram(
        root,
        graph,
        _signature(program, graph),
        program.state_dict,
        dict(program.range_constraints),
        copy.deepcopy(program.module_call_graph),
        program.example_inputs,
        program.constants,
    )


def _fake_mode(program: ExportedProgram) -> FakeTensorMode:
    """Return the mode of the tensors of a program."""
    values = tree_leaves([node.meta.get("val") for node in program.graph.nodes])
    modes = [value.fake_mode for value in values if isinstance(value, FakeTensor)]
    return modes[0] if modes else FakeTensorMode(allow_non_fake_inputs=True)


def _signature(program: ExportedProgram, graph: Graph) -> ExportGraphSignature:
    """Return a program's signature with the names that its results have in another graph."""
    signature: ExportGraphSignature = copy.deepcopy(program.graph_signature)
    results: Any = graph.output_node().args[0]
    for spec, result in zip(signature.output_specs, results, strict=True):
        if isinstance(result, Node):
            spec.arg = TensorArgument(result.name)
    return signature


def _without_defaults(op: OpOverload, args: Sequence[Any]) -> tuple[Any, ...]:
    """Return arguments without the last ones that are as the op has them by default.

    So torch.export writes them.
    """
    given = list(args)
    for parameter in reversed(op._schema.arguments[: len(given)]):
        if not parameter.has_default_value() or not _same(given[-1], parameter.default_value):
            break
        given.pop()
    return tuple(given)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


@dataclass(frozen=True)
class _Writer:
    """Writes an op, or what it is replaced by.

    Attributes:
        graph: what is written to.
        replaced: the op, in another graph.
        fake_mode: the mode of the tensors in both.
        results: an op with several results and the place of one -> that one.
    """

    graph: Graph
    replaced: Node
    fake_mode: FakeTensorMode
    results: dict[Any, Node]

    def call(self, op: OpOverload, *args: Any, **kwargs: Any) -> Node:
        """Add a call, in the place and the module of the op that is replaced.

        It has the name that torch.export gives it, and where it has several results, so has each
        of them.
        """
        name = self.graph._target_to_str(op.overloadpacket.__name__)
        given = _without_defaults(op, args)
        node = self.graph.create_node("call_function", op, given, kwargs, name)
        found = self.value(op, *args, **kwargs)
        node.meta = {**self.replaced.meta, "val": found}
        for place, value in enumerate(found if isinstance(found, (tuple, list)) else ()):
            if isinstance(value, torch.Tensor):
                one = self.graph.call_function(operator.getitem, (node, place))
                one.meta = {**self.replaced.meta, "val": value}
                self.results[node, place] = one
        return node

    def value(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what an op gives, and add nothing."""
        values = map_arg((args, kwargs), lambda node: node.meta["val"])
        with torch.no_grad(), self.fake_mode:
            found = op(*values[0], **values[1])
            # a view of a parameter is said to have a gradient
            return tree_map_only(torch.Tensor, torch.Tensor.detach, found)

    def is_view(self, x: Node, *args: Any, **kwargs: Any) -> bool:
        """Tell whether the op that is replaced gives a tensor in the memory of its first."""
        result: torch.Tensor = self.value(self.replaced.target, x, *args, **kwargs)
        memory = [int(v.untyped_storage()._cdata) for v in (x.meta["val"], result)]
        return memory[0] == memory[1]


def _is_inference(node: Node) -> bool:
    *_, mean, variance, training, _, _, _ = node.args
    return mean is not None and variance is not None and training is False


def _batch_norm(
    writer: _Writer,
    x: Node,
    weight: Any,
    bias: Any,
    mean: Node,
    variance: Node,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Node:
    op = _aten._native_batch_norm_legit_no_training.default
    found = writer.call(op, x, weight, bias, mean, variance, momentum, eps)
    return writer.results[found, 0]


def _is_of_op(node: Node) -> bool:
    """Tell whether an op takes what another op gives, and no input or parameter.

    Of a result that is an input itself, torch.export makes an alias.
    """
    x: Any = node.args[0]
    return bool(x.op == "call_function")


def _reshape(writer: _Writer, x: Node, shape: Any) -> Node:
    is_view = writer.is_view(x, shape)
    if not x.meta["val"].is_contiguous():  # only then torch says what -1 stands for
        shape = list(writer.replaced.meta["val"].shape)
    return _reshaped(writer, x, shape, is_view=is_view)


def _reshaped(writer: _Writer, x: Node, shape: Sequence[int], is_view: bool) -> Node:
    if is_view:
        return writer.call(_aten.view.default, x, shape)
    copied = writer.call(_aten.clone.default, x, memory_format=torch.contiguous_format)
    return writer.call(_aten._unsafe_view.default, copied, shape)


def _flatten(writer: _Writer, x: Node, *given: Any) -> Node:
    shape = list(writer.replaced.meta["val"].shape)
    if len(shape) == x.meta["val"].ndim:
        return x
    return _reshaped(writer, x, shape, is_view=writer.is_view(x, *given))


def _contiguous(writer: _Writer, x: Node, memory_format: Any = torch.contiguous_format) -> Node:
    if writer.is_view(x, memory_format=memory_format):
        return x
    return writer.call(_aten.clone.default, x, memory_format=memory_format)


# What a write into a part of a tensor was replaced by (where its result begins, torch says), and
# the ops that torch.export makes others of though no table has them.
_OTHERWISE_BY_TORCH = {
    _aten.as_strided_scatter.default,
    _aten.copy.default,
    _aten.diagonal_scatter.default,
    _aten.lift_fresh_copy.default,
    _aten.select_scatter.default,
    _aten.slice_scatter.default,
}

# op -> which of its calls are replaced, and by what; all else is torch.export's to decompose
_REPLACEMENTS: dict[Any, tuple[Callable[[Node], bool], Callable[..., Node]]] = {
    _aten.batch_norm.default: (_is_inference, _batch_norm),
    _aten.reshape.default: (_is_of_op, _reshape),
    _aten.flatten.using_ints: (_is_of_op, _flatten),
    _aten.contiguous.default: (_is_of_op, _contiguous),
}
