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
from mlxport.converter.graph.capture.sizes.size_steps import Reached
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
    """Return the sizes that a converted model is fixed to, and the least of others.

    Axes of dynamic size are left aside; guards stand for them.

    Args:
        program: what torch.export captured, not decomposed.
        reads: of sizes, by Python code outside of the leaves.
        leaves: paths of the modules that become one MLX layer each.
        wanted: of each tensor, the axes that were to be dynamic.
    """
    given = (node for node in user_inputs(program))
    tensors = [node for node in given if isinstance(node.meta.get("val"), torch.Tensor)]
    sizes = {
        InputAxis(number, axis): size
        for number, node in enumerate(tensors)
        for axis, size in enumerate(shape_of(node.meta["val"]))
        if not isinstance(size, Size)
    }
    flow = _followed(tensors, program.graph.nodes, sizes, leaves)
    read = _read(reads, program.graph.nodes, flow)
    fixed = (sizes.keys() if read is None else flow.fixed | read) - flow.by_weights
    least: dict[InputAxis, int] = {}
    for reached, needed in flow.needed:
        place = reached.place
        least[place] = max(reached.least(needed, sizes[place]), least.get(place, 0))
    found = []
    for place, size in sizes.items():
        asked = place.input < len(wanted) and place.axis in wanted[place.input]
        if place in fixed or asked:
            found.append(FixedSize(place, size, asked))
        elif place in least:
            found.append(FixedSize(place, least[place], least=True))
    return tuple(found)


def _followed(
    tensors: Sequence[Node],
    nodes: Iterable[Node],
    sizes: Collection[InputAxis],
    leaves: Collection[str],
) -> SizeFlow:
    """Return where the sizes in a program come from, of the inputs' axes of some sizes."""
    flow = SizeFlow(leaves)
    for number, node in enumerate(tensors):
        places = (InputAxis(number, axis) for axis in range(node.meta["val"].ndim))
        flow.origins[node] = tuple(
            frozenset([Reached(place)] if place in sizes else []) for place in places
        )
    for node in nodes:
        flow.visit(node)
    return flow


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
            found.update(one.place for axis in read.axes for one in origins[axis])
    return found


def _has_shape(node: Node, shape: Sequence[object]) -> bool:
    """Whether a node gives a tensor of a shape, as far as that is known in numbers."""
    given: Any = node.meta.get("val")
    if not isinstance(given, torch.Tensor) or given.ndim != len(shape):
        return False
    pairs: Any = zip(given.shape, shape, strict=True)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))
