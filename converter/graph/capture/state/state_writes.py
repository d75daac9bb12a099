"""Find the state of a captured model: the buffers that it writes, and where it writes them.

A captured program takes buffers and gives back what they become. Here each of them is written by a
node of its own, in the module call that computes its value, and a later call of that module reads
what the earlier one wrote. A module reads its buffers where its call begins; where that would give
another value than the program reads, the buffer is written once, at the end of the model.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.capture.leaves import plain_path

_logger = logging.getLogger(__name__)

WRITE = torch.ops.aten.copy_.default

_Stack = list[tuple[str, Any]]  # call -> (path, class), from the model inwards


def write_state(model: torch.nn.Module, program: ExportedProgram) -> tuple[str, ...]:
    """Let a program write its state by nodes, and give its results alone.

    What it writes into its inputs is dropped: a caller of the MLX model keeps them as they are.

    Args:
        model: the torch module.
        program: the decomposed program; changed in place.

    Returns:
        The qualified names of the buffers that it writes.

    Raises:
        CaptureError: the model writes into its parameters.
    """
    signature = program.graph_signature
    if changed := sorted(_changed_parameters(program)):
        raise CaptureError.listing(
            "the model changes its own parameters when it runs in eval mode:",
            changed,
            "An MLX model made from it would not. Make a buffer of what changes.",
        )
    moved = _moved_buffers(program)
    written = {b: n for n, b in signature.buffers_to_mutate.items() if n not in moved}
    output = next(node for node in program.graph.nodes if node.op == "output")
    nodes = {node.name: node for node in program.graph.nodes}
    values = {buffer: nodes[name] for buffer, name in written.items()}
    lasting = (OutputKind.USER_OUTPUT, OutputKind.TOKEN)  # a token orders checks
    outputs = [spec.kind in lasting for spec in signature.output_specs]
    output.args = (tuple(itertools.compress(output.args[0], outputs)),)
    signature.output_specs[:] = itertools.compress(signature.output_specs, outputs)
    names = _names_of(model)
    takes = {buffer: name for name, buffer in signature.inputs_to_buffers.items()}
    for buffer, value in values.items():
        _State(program, nodes[takes[buffer]], names.get(buffer, [buffer]), value).write()
    return tuple(values)


@dataclass
class _State:
    """One buffer that a program writes.

    Attributes:
        program: the program.
        buffer: the placeholder of the buffer.
        names: its qualified names.
        value: the node that gives what it becomes.
        order: node -> its place in the program.
        begins: call of a module -> the place of its first node.
    """

    program: ExportedProgram
    buffer: Node
    names: Sequence[str]
    value: Node
    order: dict[Node, int] = field(default_factory=dict)
    begins: dict[str, int] = field(default_factory=dict)

    def write(self) -> None:
        """Write the buffer where its value is computed, or at the end of the model."""
        for place, node in enumerate(self.program.graph.nodes):
            self.order[node] = place
            for call, _ in _stack(node):
                self.begins.setdefault(call, place)
        values = self._of_all_calls()
        reads = [list(self._reads(*pair)) for pair in itertools.pairwise(values)]
        if not self._reads_right(values, reads):
            _logger.debug("%s is written at the end of the model", self.names[0])
            values, reads = [], []
        for value, users in zip(values, [*reads, []], strict=False):
            for given, user in users:
                user.replace_input_with(given, self.buffer)
            after, depth = self._place_of_write(value)
            self._insert(after, self._undetached(value), _stack(value)[:depth])
        if not values:
            *_, last, _ = self.program.graph.nodes
            root = next((_stack(node)[:1] for node in self.order if _stack(node)), [])
            self._insert(last, _source(self.value), root)

    def _of_all_calls(self) -> list[Node]:
        """Return what the calls of one module write, one after the other; the last value is last.

        Calls of a module run the same ops, so the value stands in each at the same place. Empty
        where no module computes the value.
        """
        value = _source(self.value)
        if value.op != "call_function":
            return []
        last = self._call(value)
        nodes = {call: list(self._inside(call)) for call in self._calls_like(last)}
        place = nodes[last].index(value)
        earlier = []
        for call in itertools.takewhile(lambda one: one != last, nodes):
            found = nodes[call][place] if place < len(nodes[call]) else None
            if found is None or not _alike(found, value):
                return [value]
            earlier.append(found)
        return [*earlier, value]

    def _calls_like(self, call: str) -> list[str]:
        """Return the calls of the module that one is a call of, in their order."""
        paths = {key: path for node in self.order for key, (path, _) in _stack(node)}
        return [key for key in self.begins if plain_path(paths[key]) == plain_path(paths[call])]

    def _inside(self, call: str) -> Iterator[Node]:
        for node in self.order:
            inside = any(key == call for key, _ in _stack(node))
            if inside and node.op == "call_function" and _source(node) is node:
                yield node

    def _reads(self, value: Node, following: Node) -> Iterator[tuple[Node, Node]]:
        """Yield what reads a value that is written in the call of the next one, and by which node.

        Args:
            value: what is written.
            following: what is written next.
        """
        call = self._call(following)
        for given in [node for node in self.order if _source(node) is value]:
            yield from ((given, u) for u in given.users if any(key == call for key, _ in _stack(u)))

    def _reads_right(
        self, values: Sequence[Node], reads: Sequence[Sequence[tuple[Node, Node]]]
    ) -> bool:
        """Whether every read would see what was written before the module call it is in."""
        writes = [self.order[self._place_of_write(value)[0]] for value in values]
        expected = [(user, 0) for user in self.buffer.users if _source(user) in (user, self.buffer)]
        expected += [(user, n) for n, found in enumerate(reads, 1) for _, user in found]
        return writes == sorted(writes) and all(
            sum(write < self.begins.get(self._call(user), 0) for write in writes) == number
            for user, number in expected
        )

    def _place_of_write(self, value: Node) -> tuple[Node, int]:
        """Return behind which node a value is written, and how deep in its stack of modules.

        The sooner the better, in the call whose code writes it.
        """
        value = self._undetached(value)
        stack = _stack(value)
        depth = self._depth(stack)
        if depth == len(stack):
            return value, depth
        return max(self._inside(stack[depth][0]), key=self.order.__getitem__), depth

    def _undetached(self, value: Node) -> Node:
        """Return what a value is detached of, where the call computes that whose code writes it."""
        stack = _stack(value)
        depth = self._depth(stack)
        computed: Any = value.args[0] if value.target is _DETACH else value
        in_same_call = _stack(computed)[:depth] == stack[:depth]
        if computed is not value and in_same_call and computed.op == "call_function":
            return self._undetached(computed)
        return value

    def _call(self, node: Node) -> str:
        """Return the innermost call around a node of a module that the buffer is in or below."""
        stack = _stack(node)
        depth = self._depth(stack)
        return stack[depth - 1][0] if depth else ""

    def _depth(self, stack: _Stack) -> int:
        found = 0
        for depth, (_, (path, _)) in enumerate(stack, 1):
            prefix = f"{plain_path(path)}." if path else ""
            if any(name.startswith(prefix) for name in self.names):
                found = depth
        return found

    def _insert(self, after: Node, value: Node, stack: _Stack) -> None:
        with self.program.graph.inserting_after(after):
            node = self.program.graph.call_function(WRITE, (self.buffer, value))
        node.meta = {**value.meta, "nn_module_stack": dict(stack)}


def _source(node: Node) -> Node:
    """Return the node whose values another passes on as they are."""
    while node.op == "call_function" and node.target in _PASSED_ON:
        given: Any = node.args[-1] if node.target is torch.ops.aten.copy.default else node.args[0]
        if not _same_form(given, node):
            break
        node = given
    return node


_PASSED_ON = (torch.ops.aten.alias.default, torch.ops.aten.copy.default)
_DETACH = torch.ops.aten.detach.default  # what a module is assigned comes detached


def _stack(node: Node) -> _Stack:
    return list((node.meta.get("nn_module_stack") or {}).items())


def _alike(one: Node, other: Node) -> bool:
    return one.target is other.target and _same_form(one, other)


def _same_form(one: Node, other: Node) -> bool:
    a, b = one.meta.get("val"), other.meta.get("val")
    if not isinstance(a, torch.Tensor):
        return False
    return isinstance(b, torch.Tensor) and a.shape == b.shape and a.dtype == b.dtype


def _names_of(model: torch.nn.Module) -> dict[str, list[str]]:
    """Return all names of each buffer, by each of them."""
    names: dict[int, list[str]] = {}
    for name, buffer in model.named_buffers(remove_duplicate=False):
        names.setdefault(id(buffer), []).append(name)
    return {name: group for group in names.values() for name in group}


def _moved_buffers(program: ExportedProgram) -> set[str]:
    """Return the nodes that write a buffer's own values back into it, in its dtype or another.

    ``self.table = self.table.to(x.device, x.dtype)`` changes nothing that a later call would see.
    """
    signature = program.graph_signature
    moved = set()
    for node in program.graph.nodes:
        source = node
        while source.op == "call_function" and str(source.target) in _MOVES:
            source = source.args[0]
        buffer = signature.inputs_to_buffers.get(source.name)
        if buffer is not None and signature.buffers_to_mutate.get(node.name) == buffer:
            moved.add(node.name)
    return moved


_MOVES = (
    *("aten.alias.default", "aten.clone.default", "aten.detach.default", "aten._to_copy.default"),
    *("aten.to.dtype", "aten.to.device", "aten.to.dtype_layout"),
)


def _changed_parameters(program: ExportedProgram) -> Iterator[str]:
    """Yield the parameters a program writes into, but for tables whose rows are kept short."""
    written = program.graph_signature.parameters_to_mutate
    for node in program.graph.nodes:
        if node.name in written and str(node.target) != "aten.embedding_renorm.default":
            yield written[node.name]
