"""Replace the in-place writes of a captured program by new values, in the modules they are in.

torch.export's decomposition can do that too, but takes every later view of what was written anew
where it is read: a split then lies inside of the layers behind it. Here a written tensor is the new
value for all who read it later, and what else shares its memory is taken anew once, outside of the
module that writes. What has no such form (views MLX has not, parameters, lists) is left to torch.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument
from torch.fx import Node
from torch.utils._pytree import tree_leaves

_logger = logging.getLogger(__name__)

_aten = torch.ops.aten
_Stack = list[tuple[str, Any]]  # call -> (path, class), from the model inwards


def replace_writes(program: ExportedProgram) -> None:
    """Replace the in-place ops of a program by ops that give new values, where that can be done.

    Args:
        program: what torch.export captured, not decomposed; changed in place.
    """
    if any(_is_mutable(node) for node in program.graph.nodes):
        _Writes(program).replace()
        program.graph_module.recompile()


def complete_stacks(program: ExportedProgram) -> None:
    """Say of what torch computes for the results alone that the model itself computes it.

    Views that torch takes anew for the results are in no module, which unflattening cannot take.

    Args:
        program: the decomposed program; changed in place.
    """
    stacks = [_stack(node) for node in program.graph.nodes]
    root = next((stack[:1] for stack in stacks if stack), [])
    for node, stack in zip(program.graph.nodes, stacks, strict=True):
        if node.op == "call_function" and not stack:
            node.meta["nn_module_stack"] = dict(root)


def has_writes(program: ExportedProgram) -> bool:
    """Whether in-place ops are left, so that torch takes views anew where they are read."""
    return any(map(_is_mutable, program.graph.nodes))


@dataclass(frozen=True)
class _Link:
    """One view on the way from the tensor that has the memory: ``view`` is one of ``whole``."""

    view: Node
    whole: Node


@dataclass
class _Writes:
    """A program whose writes are replaced, and which of its nodes share memory.

    Attributes:
        program: the program.
        views: nodes that share memory with their first argument.
        unclear: nodes that share memory with something else than their first argument.
        memory: node -> the memory its results had when the program was captured.
        aliases: memory that torch.export recorded for an alias -> that of what it is an alias of.
        order: node -> its place in the program.
    """

    program: ExportedProgram
    views: set[Node] = field(default_factory=set)
    unclear: set[Node] = field(default_factory=set)
    memory: dict[Node, set[int]] = field(default_factory=dict)
    aliases: dict[int, set[int]] = field(default_factory=dict)
    order: dict[Node, int] = field(default_factory=dict)

    def replace(self) -> None:
        """Replace what can be replaced, from the first write to the last."""
        for node in self.program.graph.nodes:
            self._note_memory(node)
        self._number()
        for node in list(self.program.graph.nodes):
            if not _is_write(node) or node in self.unclear or not isinstance(node.args[0], Node):
                continue
            if torch.Tag.inplace_view in node.target.tags:
                self._as_view(node)
            elif node in self.views:
                self._as_value(node)

    # -- memory ----------------------------------------------------------------------------------

    def _note_memory(self, node: Node) -> None:
        """Note whether a node's result shares memory with what it is given."""
        self.memory[node] = self._memory_of(node)
        if node.op != "call_function":
            return
        sharing = [one for one in node.all_input_nodes if self.memory[node] & self.memory[one]]
        if sharing and sharing[0] is node.args[0]:
            self.views.add(node)
        elif sharing:
            self.unclear.add(node)

    def _memory_of(self, node: Node) -> set[int]:
        storages = _storages(node)
        if node.target is _aten.alias.default:
            given: Any = node.args[0]
            self.aliases.update(dict.fromkeys(storages, self.memory[given]))
        return set().union(*(self.aliases.get(one, {one}) for one in storages))

    def _root(self, node: Node) -> Node:
        """Return the tensor that has the memory of a node's result."""
        while node in self.views:
            node = node.args[0]  # type: ignore[assignment]
        return node

    def _sharing(self, root: Node) -> Iterator[Node]:
        """Yield all that has the memory of a tensor, itself included."""
        waiting = [root]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += [u for u in node.users if u in self.views and u.args[0] is node]

    def _number(self) -> None:
        self.order = {node: place for place, node in enumerate(self.program.graph.nodes)}

    def _writes_behind(self, write: Node) -> list[Node]:
        """Return the later writes into the memory that a node writes into."""
        return [
            node
            for node, place in self.order.items()
            if place > self.order[write]
            and _is_write(node)
            and self.memory[node] & self.memory[write]
        ]

    def _is_read_after(self, node: Node, write: Node) -> bool:
        return any(self.order[user] > self.order[write] for user in node.users)

    def _may_be_replaced(self, root: Node) -> bool:
        """Whether memory is the program's own, or a user's input, whose writes are dropped."""
        if root.op == "call_function":
            return not any(self.memory[node] & self.memory[root] for node in self.unclear)
        specs = self.program.graph_signature.input_specs
        kinds = {s.arg.name: s.kind for s in specs if isinstance(s.arg, TensorArgument)}
        return kinds.get(root.name) is InputKind.USER_INPUT

    # -- writes ----------------------------------------------------------------------------------

    def _as_view(self, node: Node) -> None:
        """Make a view of an op that changes the shape of a tensor in place (``unsqueeze_``)."""
        functional = _functional(node.target)
        if functional is not None:
            node.target = functional
            self._replace_later(node.args[0], node, node)

    def _as_value(self, node: Node) -> None:
        """Make a new value of an in-place op."""
        written: Any = node.args[0]
        root, functional = self._root(written), _functional(node.target)
        if functional is None or not self._may_be_replaced(root):
            return
        others = [
            other
            for other in sorted(self._sharing(root), key=self.order.__getitem__)
            if self.order[other] < self.order[node]
            and other is not written
            and self._is_read_after(other, node)
        ]
        before = node.target
        try:
            links = self._links(written) if others else []
            node.target = functional
            value = _value(node)
            if value.shape != written.meta["val"].shape or value.dtype != written.meta["val"].dtype:
                raise _LeftToTorch(f"{functional} gives another shape or dtype")
            self.views.discard(node)
            node.meta["val"] = value
            if others:
                self._write_back(node, links, others)
        except _LeftToTorch as reason:
            _logger.debug("%s is left to torch: %s", node, reason)
            node.target = before
            self.views.add(node)
            return
        self._replace_later(written, node, node)

    def _links(self, view: Node) -> list[_Link]:
        """Return the views from a tensor down to the one that has the memory.

        Raises:
            _LeftToTorch: one of them cannot be written back, or is itself a write.
        """
        links = []
        while view in self.views:
            whole: Any = view.args[0]
            if view.target is operator.getitem:
                whole = whole.args[0]
            if _is_write(view) or _write_back_of(_Link(view, whole)) is None:
                raise _LeftToTorch(f"{view.target} has no inverse")
            links.append(_Link(view, whole))
            view = whole
        return links

    def _write_back(self, write: Node, links: Sequence[_Link], others: Sequence[Node]) -> None:
        """Take all that shares memory with a written tensor anew, and let later readers have it."""
        for other in others:
            self._links_are_plain(other)
        written: Any = write.args[0]
        later = self._writes_behind(write)
        place, stack = self._place(write, others, later)
        known: dict[Node, Node] = {written: write}
        again_as: dict[Node, Node] = {}
        made: list[Node] = []

        def make(target: Any, args: tuple[Any, ...], like: Node, *, view: bool) -> Node:
            with self.program.graph.inserting_after(made[-1] if made else place):
                node: Node = self.program.graph.call_function(target, args, {})
            node.meta = {**like.meta, "nn_module_stack": dict(stack)}
            made.append(node)
            node.meta["val"] = _value(node)
            self.memory[node] = self.memory[like]
            if view:
                self.views.add(node)
            return node

        def again(node: Node) -> Node:
            if node not in known:
                given = (again(node.args[0]), *node.args[1:])  # type: ignore[arg-type]
                known[node] = make(node.target, given, node, view=True)
                known[node].kwargs = node.kwargs
            return known[node]

        try:
            for link in links:
                inverse = _write_back_of(link)
                if inverse is None:
                    raise AssertionError(f"{link.view} was found to have an inverse")
                target, args = inverse(known[link.view])
                known[link.whole] = make(target, args, write, view=False)
            renewed = list(others)
            if later and links:  # a later write to the whole has to reach its parts
                known = {links[-1].whole: known[links[-1].whole]}
                renewed += [written, write]
                again_as = {write: written}
            taken = {other: again(again_as.get(other, other)) for other in renewed}
        except Exception as error:  # whatever torch says of an op on fake tensors
            for node in reversed(made):
                self.program.graph.erase_node(node)
                self.views.discard(node)
            raise _LeftToTorch(str(error)) from error
        self._number()
        for other, new in taken.items():
            self._replace_later(other, new, made[-1])

    def _links_are_plain(self, view: Node) -> None:
        while view in self.views:
            if _is_write(view):
                raise _LeftToTorch(f"{view} is written to before")
            view = view.args[0]  # type: ignore[assignment]

    def _place(
        self, write: Node, others: Sequence[Node], later: Sequence[Node]
    ) -> tuple[Node, _Stack]:
        """Return behind which node, and in which module, others are taken anew after a write.

        That is behind the module that writes, in the innermost that all others are in too; unless
        that module reads them itself or writes once more.
        """
        stack = _stack(write)
        outer = stack
        for other in (write.args[0], *others):
            outer = _common(outer, _stack(other))  # type: ignore[arg-type]
        depth = len(outer)
        if not outer or depth == len(stack):
            return write, stack
        last = write
        while _stack(last.next)[: depth + 1] == stack[: depth + 1]:
            last = last.next
        inside = range(self.order[write] + 1, self.order[last] + 1)
        readers = [user for other in others for user in other.users]
        if any(self.order[node] in inside for node in (*readers, *later)):
            return write, stack
        return last, outer

    def _replace_later(self, old: Any, new: Node, after: Node) -> None:
        """Let all who read a node behind another read a new one instead."""
        behind = self.order[after]
        for user in list(old.users):
            if self.order[user] > behind:
                user.replace_input_with(old, new)
                if user.op == "output":
                    self._rename_output(old.name, new.name)

    def _rename_output(self, old: str, new: str) -> None:
        for spec in self.program.graph_signature.output_specs:
            if isinstance(spec.arg, TensorArgument) and spec.arg.name == old:
                spec.arg = TensorArgument(name=new)


class _LeftToTorch(Exception):
    """A write whose replacement is torch's."""


def _is_write(node: Node) -> bool:
    """Whether a node writes into its first argument, and into nothing else."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    first, *rest = node.target._schema.arguments or (None,)
    if first is None or first.alias_info is None or not first.alias_info.is_write:
        return False
    return not any(argument.alias_info and argument.alias_info.is_write for argument in rest)


def _is_mutable(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _functional(op: Any) -> Any:
    """Return the op that gives what an in-place op writes; None where there is none."""
    name = op._schema.name.removeprefix("aten::")
    if name.startswith("__i") and name.endswith("__"):
        name = f"__{name[3:]}"
    elif name.endswith("_") and op.namespace == "aten":
        name = name[:-1]
    else:
        return None
    found = getattr(getattr(_aten, name, None), op._overloadname, None)
    if found is None or found._schema.is_mutable:
        return None
    arguments = [argument.name for argument in op._schema.arguments]
    return found if [a.name for a in found._schema.arguments] == arguments else None


def _value(node: Node) -> Any:
    """Return what a node gives, by torch's own rules for shapes and dtypes.

    Raises:
        _LeftToTorch: torch refuses it.
    """
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    leaves = tree_leaves((args, kwargs))
    modes = [t.fake_mode for t in leaves if hasattr(t, "fake_mode")]
    try:
        with modes[0], torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[operator]
    except Exception as error:  # whatever torch says of an op on fake tensors
        raise _LeftToTorch(str(error)) from error


def _storages(node: Node) -> set[int]:
    """Return the memory of the tensors that a node gives."""
    tensors = [t for t in tree_leaves(node.meta.get("val")) if isinstance(t, torch.Tensor)]
    found = set()
    for tensor in tensors:
        if tensor.layout is torch.strided:
            found.add(tensor.untyped_storage()._cdata)
    return found


def _stack(node: Node) -> _Stack:
    """Return the calls of modules that a node is in, the model's own first."""
    return list((node.meta.get("nn_module_stack") or {}).items())


def _common(one: _Stack, other: _Stack) -> _Stack:
    """Return the calls that two stacks begin with."""
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return one[:length]


# -- how a view is written back into what it is a view of ------------------------------------------

_Inverse = Callable[[Node], tuple[Any, tuple[Any, ...]]]


def _write_back_of(link: _Link) -> _Inverse | None:
    """Return what gives, of a written view, the whole with the view written into it."""
    view, whole = link.view, link.whole
    shape = _static_shape(whole)
    target: Any = view.target
    if target is operator.getitem:
        return _part_written(view, whole)
    given = dict(zip((a.name for a in target._schema.arguments), view.args, strict=False))
    given = {**given, **view.kwargs}
    name = target._schema.name.removeprefix("aten::")
    dims = given.get("dim", 0)
    if name in _SAME_ELEMENTS and shape is not None:
        return lambda new: (_aten.view.default, (new, shape))
    if name == "unsqueeze":
        axis = dims % view.meta["val"].ndim
        return lambda new: (_aten.squeeze.dim, (new, axis))
    if name == "slice":
        ends = (dims, given.get("start"), given.get("end"), given.get("step", 1))
        return lambda new: (_aten.slice_scatter.default, (whole, new, *ends))
    if name == "select":
        return lambda new: (_aten.select_scatter.default, (whole, new, dims, given["index"]))
    if name == "diagonal":
        axes = (given.get("offset", 0), given.get("dim1", 0), given.get("dim2", 1))
        return lambda new: (_aten.diagonal_scatter.default, (whole, new, *axes))
    if name == "permute":
        order = [axis % len(given["dims"]) for axis in given["dims"]]
        back = sorted(range(len(order)), key=order.__getitem__)
        return lambda new: (_aten.permute.default, (new, back))
    if name in ("transpose", "t"):
        return lambda new: (target, (new, *view.args[1:]))
    if name == "narrow" and isinstance(given["start"], int) and given["start"] >= 0:
        end = given["start"] + given["length"] if isinstance(given["length"], int) else None
        if end is not None:
            ends = (dims, given["start"], end, 1)
            return lambda new: (_aten.slice_scatter.default, (whole, new, *ends))
    if name in _IDENTITIES and _is_whole(view, whole):
        return lambda new: (_aten.alias.default, (new,))
    return None


# views of all elements, in their order
_SAME_ELEMENTS = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "view_as")
# what gives its argument itself, where it gives a view of all of it
_IDENTITIES = ("alias", "detach", "contiguous", "to", "_to_copy", "type_as", "expand", "clone")


def _part_written(view: Node, whole: Node) -> _Inverse | None:
    """Return how one of the tensors that an op splits another into is written back."""
    split: Any = view.args[0]
    number: Any = view.args[1]
    name = split.target._schema.name.removeprefix("aten::")
    if name not in ("split", "split_with_sizes", "chunk", "tensor_split", "unbind"):
        return None
    given = dict(zip((a.name for a in split.target._schema.arguments), split.args, strict=False))
    dim = {**given, **split.kwargs}.get("dim", 0)
    if name == "unbind":
        return lambda new: (_aten.select_scatter.default, (whole, new, dim, number))
    sizes = [part.shape[dim] for part in split.meta["val"]]
    if not all(isinstance(size, int) for size in sizes):
        return None
    start = sum(sizes[:number])
    ends = (dim, start, start + sizes[number], 1)
    return lambda new: (_aten.slice_scatter.default, (whole, new, *ends))


def _static_shape(node: Node) -> list[int] | None:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    shape = list(value.shape)
    return shape if all(isinstance(size, int) for size in shape) else None


def _is_whole(view: Node, whole: Node) -> bool:
    one, other = view.meta.get("val"), whole.meta.get("val")
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    return one.shape == other.shape and one.stride() == other.stride()
