"""Let a captured program add to a cache of keys and values, in place of taking and giving tensors.

A tensor of the past belongs to such a cache when nothing is made of it but itself with more behind
it along one axis, ``cat([past, new], 2)``, and that is among what the program gives. What else
reads the past may read its sizes alone. Names and classes of modules decide nothing.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from mlxport.converter.graph.capture.dynamic import user_inputs
from mlxport.converter.graph.ir.caches import CACHE, CachedArgument, join_layer, update_layer
from mlxport.converter.graph.ir.sizes import Size, shape_of
from mlxport.converter.plan.structure import Signature
from mlxport.converter.torch_model.caches import is_cache_class

_logger = logging.getLogger(__name__)

_CAT, _SIZE = torch.ops.aten.cat.default, torch.ops.aten.sym_size.int
_AXIS = 2  # of (batch, heads, length, head size)


@dataclass(frozen=True)
class GrownTensor:
    """A tensor of a cache.

    Attributes:
        past: the placeholder that is given what it held.
        added: what a call adds.
        whole: both, which the attention reads and the program gives.
        sizes: the nodes that read a size of the past.
    """

    past: Node
    added: Node
    whole: Node
    sizes: tuple[Node, ...]


def grown_tensors(program: ExportedProgram, axis: int = _AXIS) -> Iterator[GrownTensor]:
    """Yield the inputs of a program that it gives back with more behind them along an axis.

    Args:
        program: captured and decomposed.
        axis: the one that grows.
    """
    given = set(_output(program).all_input_nodes)
    for past in user_inputs(program):
        sizes = tuple(node for node in past.users if node.target is _SIZE)
        others = [node for node in past.users if node not in sizes]
        if len(others) != 1 or others[0] not in given or others[0].target is not _CAT:
            continue
        parts, place = others[0].args[0], others[0].args[1] if len(others[0].args) > 1 else 0
        if not isinstance(parts, (list, tuple)) or not isinstance(place, int) or len(parts) != 2:
            continue
        first, added = parts
        grows = first is past and place % past.meta["val"].ndim == axis
        if grows and isinstance(added, Node) and added is not past:
            yield GrownTensor(past, added, others[0], sizes)


def replace_caches(
    program: ExportedProgram, signature: Signature, arguments: Mapping[str, Any]
) -> CachedArgument | None:
    """Let a program update each layer of a ``DynamicCache`` that it is given, where it can.

    Its inputs stay. Of the keys and values of a layer one tensor is made, which stands for that
    layer; `update_layer` takes the place of the two concatenations, and the program gives the past
    as it was where it gave what that became.

    Args:
        program: captured and decomposed; changed in place.
        signature: what it takes and gives.
        arguments: of the call it was captured on, by name.

    Returns:
        The argument and what is to be known of it; None where the program stays as it was: no
        cache is given, its length is fixed, or more is done with it.
    """
    names = [name for name, value in arguments.items() if is_cache_class(type(value))]
    taken = CACHE in arguments and CACHE not in names
    if len(names) != 1 or names[0] not in signature.arguments or taken:
        return None
    start = 0
    for name, structure in signature.arguments.items():
        count = len(list(structure.leaves(name)))
        if name == names[0]:
            break
        start += count
    inputs = user_inputs(program)[start : start + count]
    grown = {tensor.past: tensor for tensor in grown_tensors(program)}
    if not all(node in grown for node in inputs):
        _logger.debug("%s: more is done with the past than to add to it", names[0])
        return None
    flat = [grown[node] for node in inputs]
    layers = list(zip(flat[::2], flat[1::2], strict=True))
    places = _places(program, [tensor.whole for tensor in flat])
    if places is None or not _fit(signature, layers, places):
        _logger.debug("%s: its tensors are not those of one cache that grows", names[0])
        return None
    wholes = tuple((shape_of(t.whole.meta["val"]), t.whole.meta["val"].dtype) for t in flat)
    order = {node: place for place, node in enumerate(program.graph.nodes)}
    befores = [_place_of_update(pair, order) for pair in layers]
    if None in befores:
        _logger.debug("%s: the keys are read before the values are there", names[0])
        return None
    joined = _join(program, layers)
    for layer, pair, before in zip(joined, layers, befores, strict=True):
        assert before is not None
        _update(program, layer, pair, before)
    _read_sizes_of(program, joined[0], [size for tensor in flat for size in tensor.sizes])
    program.graph.lint()
    return CachedArgument(names[0], len(layers), places, wholes)


def _output(program: ExportedProgram) -> Node:
    output: Node = next(node for node in program.graph.nodes if node.op == "output")
    return output


def _places(program: ExportedProgram, nodes: Sequence[Node]) -> tuple[int, ...] | None:
    """Return where a program gives some nodes; None where it gives one of them twice."""
    outputs: list[Any] = list(_output(program).args[0])  # type: ignore[arg-type]
    if any(outputs.count(node) != 1 for node in nodes):
        return None
    return tuple(outputs.index(node) for node in nodes)


def _fit(
    signature: Signature,
    layers: Sequence[tuple[GrownTensor, GrownTensor]],
    places: Sequence[int],
) -> bool:
    """Whether the layers of a cache are of one open length, and the program gives more than it."""
    lengths = set()
    for keys, values in layers:
        k, v = (shape_of(tensor.past.meta["val"]) for tensor in (keys, values))
        if (
            len(k) != 4
            or k[:3] != v[:3]
            or keys.past.meta["val"].dtype != (values.past.meta["val"].dtype)
        ):
            return False
        if not all(isinstance(size, int) for size in (k[1], k[3], v[3])):
            return False
        lengths.add(k[_AXIS])
    leaves = list(signature.result.leaves(""))
    plain = all(leaf.kind in ("tensor", "constant") for _, leaf in leaves)
    others = [n for n, (_, leaf) in enumerate(leaves) if leaf.kind == "tensor" and n not in places]
    (length, *more) = lengths
    return plain and bool(others) and not more and isinstance(length, Size)


def _place_of_update(
    pair: tuple[GrownTensor, GrownTensor], order: Mapping[Node, int]
) -> Node | None:
    """Return the node before which a layer is updated; None where there is no such place."""
    keys, values = pair
    first, last = sorted((keys.whole, values.whole), key=order.__getitem__)
    if all(order[tensor.added] < order[first] for tensor in pair):
        return first
    users = [user for user in first.users if user.op != "output"]
    return last if all(order[user] > order[last] for user in users) else None


def _join(
    program: ExportedProgram, layers: Sequence[tuple[GrownTensor, GrownTensor]]
) -> list[Node]:
    """Return a node for each layer, which stands for its keys and values, behind the inputs."""
    *_, last = (node for node in program.graph.nodes if node.op == "placeholder")
    joined = []
    with program.graph.inserting_after(last):
        for keys, values in layers:
            node = program.graph.call_function(join_layer, (keys.past, values.past))
            node.meta["val"] = torch.cat([keys.past.meta["val"], values.past.meta["val"]], -1)
            node.meta["nn_module_stack"] = _root_stack(program)
            joined.append(node)
    return joined


def _root_stack(program: ExportedProgram) -> dict[str, Any]:
    stacks = (node.meta.get("nn_module_stack") for node in program.graph.nodes)
    return dict([next(iter(stack.items())) for stack in stacks if stack][:1])


def _update(
    program: ExportedProgram, layer: Node, pair: tuple[GrownTensor, GrownTensor], before: Node
) -> None:
    keys, values = pair
    graph = program.graph
    output = _output(program)
    with graph.inserting_before(before):
        added = (keys.added, values.added)
        update = graph.call_function(update_layer, (layer, *added))
        update.meta = {**keys.whole.meta, "val": tuple(t.whole.meta["val"] for t in pair)}
        parts = [graph.call_function(operator.getitem, (update, n)) for n in range(2)]
    for tensor, part in zip(pair, parts, strict=True):
        part.meta = dict(tensor.whole.meta)
        output.replace_input_with(tensor.whole, tensor.past)
        for spec in program.graph_signature.output_specs:
            if spec.arg.name == tensor.whole.name:
                spec.arg.name = tensor.past.name
        tensor.whole.replace_all_uses_with(part)
        graph.erase_node(tensor.whole)


def _read_sizes_of(program: ExportedProgram, layer: Node, sizes: Sequence[Node]) -> None:
    """Read the sizes of the past off one layer, where the model begins."""
    read: dict[int, Node] = {}
    for size in sizes:
        axis = int(size.args[1])  # type: ignore[arg-type]
        if axis not in read:
            with program.graph.inserting_after(layer):
                read[axis] = program.graph.call_function(_SIZE, (layer, axis))
            read[axis].meta = {**size.meta, "nn_module_stack": _root_stack(program)}
        size.replace_all_uses_with(read[axis])
        program.graph.erase_node(size)
