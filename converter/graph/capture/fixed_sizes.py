"""Which sizes of the inputs a conversion fixes: all but those known not to matter.

A captured program holds at the sizes of the example. It holds at others too along an axis that only
passes through ops which compute the same whatever it measures, as long as no Python code has read a
size that depends on it: that could have become a number of the program, or decided which ops are in
it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from mlxport.converter.graph.capture.dynamic import user_inputs
from mlxport.converter.graph.capture.sizes.size_flow import SizeFlow
from mlxport.converter.graph.capture.sizes.size_watch import SizeRead, marks
from mlxport.converter.graph.ir.inputs import FixedSize, InputAxis
from mlxport.converter.graph.ir.sizes import Size, shape_of


def fixed_sizes(
    program: ExportedProgram,
    *,
    reads: Sequence[SizeRead],
    leaves: Collection[str],
    wanted: Sequence[Collection[int]] = (),
) -> tuple[FixedSize, ...]:
    """Return the sizes that a converted model is fixed to.

    Args:
        program: what torch.export captured, not decomposed.
        reads: of sizes, by Python code outside of the leaves.
        leaves: paths of the modules that become one MLX layer each.
        wanted: of each tensor, the axes that were to be dynamic.
    """
    given = (node for node in user_inputs(program))
    tensors = [node for node in given if isinstance(node.meta.get("val"), torch.Tensor)]
    places = fixed_places(tensors, program.graph.nodes, reads=reads, leaves=leaves)
    found = []
    for number, node in enumerate(tensors):
        asked = wanted[number] if number < len(wanted) else ()
        for axis, size in enumerate(shape_of(node.meta["val"])):
            place = InputAxis(number, axis)
            if isinstance(size, int) and (place in places or axis in asked):
                found.append(FixedSize(place, size, axis in asked))
    return tuple(found)


def fixed_places(
    tensors: Sequence[Node],
    nodes: Collection[Node],
    *,
    reads: Sequence[SizeRead],
    leaves: Collection[str],
) -> set[InputAxis]:
    """Return the axes whose sizes are fixed.

    Axes of dynamic size are left aside; guards stand for them.

    Args:
        tensors: the placeholders of the tensors that the model's caller gives, in order.
        nodes: of the program as captured, not decomposed.
        reads: of sizes, by Python code outside of the leaves.
        leaves: paths of the modules that become one MLX layer each.
    """
    flow = SizeFlow(leaves)
    every: set[InputAxis] = set()
    for number, node in enumerate(tensors):
        axes = list(enumerate(shape_of(node.meta["val"])))
        static = [None if isinstance(s, Size) else InputAxis(number, a) for a, s in axes]
        every.update(axis for axis in static if axis is not None)
        flow.origins[node] = tuple(frozenset(() if a is None else (a,)) for a in static)
    for node in nodes:
        flow.visit(node)
    read = _read(reads, nodes, flow)
    return (every if read is None else flow.fixed | read) - flow.by_weights


def _read(
    reads: Sequence[SizeRead], nodes: Iterable[Node], flow: SizeFlow
) -> set[InputAxis] | None:
    """Return the axes on which the sizes that were read depend; None where that is unknown."""
    marked: dict[int | None, list[Node]] = defaultdict(list)
    for node in nodes:
        for mark in marks(node):
            marked[mark].append(node)
    found: set[InputAxis] = set()
    for read in reads:
        if not marked[read.mark]:
            return None
        for node in marked[read.mark]:
            if not _has_shape(node, read.shape):
                return None
            origins = flow.of(node)
            found.update(*(origins[axis] for axis in read.axes))
    return found


def _has_shape(node: Node, shape: Sequence[object]) -> bool:
    """Whether a node gives a tensor of a shape, as far as that is known in numbers."""
    given: Any = node.meta.get("val")
    if not isinstance(given, torch.Tensor) or given.ndim != len(shape):
        return False
    pairs: Any = zip(given.shape, shape, strict=True)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))
