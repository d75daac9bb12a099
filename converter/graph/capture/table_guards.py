"""Conditions that keep positions within the array they are looked up in.

PyTorch raises where an index is beyond its table; MLX reads whatever is there. No guard of
torch.export's says so, as to it an index is data. Positions that are counted along a size, or
constants, have bounds; where those are beyond a table at some sizes, the model has to raise there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from mlxport.converter.graph.capture.dynamic import user_inputs
from mlxport.converter.graph.ir.sizes import (
    Size,
    is_never_negative,
    shape_of,
    size_text,
    symbolic,
)

Bounds: TypeAlias = "tuple[Any, Any] | None"  # the least and the largest number, int or Size

LARGEST_CONSTANT = 1 << 22  # elements; of larger ones the bounds are not looked for

_SAME_VALUES = frozenset(
    f"aten.{name}"
    for name in (
        "_to_copy.default",
        "alias.default",
        "clone.default",
        "contiguous.default",
        "detach.default",
        "detach_.default",
        "expand.default",
        "flatten.using_ints",
        "flip.default",
        "index.Tensor",
        "index_select.default",
        "lift_fresh_copy.default",
        "permute.default",
        "repeat.default",
        "reshape.default",
        "roll.default",
        "select.int",
        "slice.Tensor",
        "squeeze.default",
        "squeeze.dim",
        "t.default",
        "to.device",
        "to.dtype",
        "to.dtype_layout",
        "transpose.int",
        "unsqueeze.default",
        "view.default",
    )
)


class _LookUp(NamedTuple):
    """Positions that are looked up along an axis of an array."""

    table: Any
    axis: int
    places: Any
    from_the_end: bool = False  # a negative position counts from the end


def table_conditions(program: ExportedProgram, names: Mapping[str, str]) -> list[str]:
    """Return what must be true of the sizes so that every known position is within its table.

    Args:
        program: what torch.export captured, not decomposed.
        names: torch's symbol -> what to call it.
    """
    found: dict[str, None] = {}
    known = _Known(program)
    for look in _look_ups(program):
        bounds = known.bounds(look.places)
        if bounds is None:
            continue
        rows, (low, high) = shape_of(look.table.meta["val"])[look.axis], bounds
        least = -low
        for needed, at_most in ((high + 1, rows), (least, rows if look.from_the_end else 0)):
            spare = at_most - needed
            if isinstance(spare, Size) and not is_never_negative(spare):
                found[f"{size_text(needed, names)} <= {size_text(at_most, names)}"] = None
    return list(found)


def unchecked_values(program: ExportedProgram) -> list[int | str]:
    """Return whose values decide what is looked up somewhere, without bounds that are known.

    Inputs by their place among the tensors. Where none is behind an index, what it is computed of:
    tensors of the model by name, numbers drawn, dynamic sizes. Of constants alone it is what it
    was in the example.

    Args:
        program: what torch.export captured, not decomposed.
    """
    known = _Known(program)
    given = [n for n in user_inputs(program) if isinstance(n.meta.get("val"), torch.Tensor)]
    deciding: set[Node] = set()
    others: dict[str, None] = {}
    for look in _look_ups(program):
        if isinstance(look.places, Node) and known.bounds(look.places) is None:
            behind = _behind(look.places)
            deciding |= behind
            if behind.isdisjoint(given):
                others |= dict.fromkeys(_computed_of(program, behind))
    integers = [i for i, node in enumerate(given) if node in deciding and _is_integer(node)]
    return [*(integers or [i for i, node in enumerate(given) if node in deciding]), *others]


def _computed_of(program: ExportedProgram, behind: Collection[Node]) -> Iterator[str]:
    """Yield what an index depends on that may be another in another call, or with other weights."""
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    yield from (f"self.{name}" for node, name in stored.items() if node in map(str, behind))
    tags = (getattr(node.target, "tags", ()) for node in behind)
    if any(torch.Tag.nondeterministic_seeded in of_op for of_op in tags):
        yield "the numbers drawn"
    if any(_depends_on_sizes(node) for node in behind):
        yield "the positions computed of sizes"


def _depends_on_sizes(node: Node) -> bool:
    value = node.meta.get("val")
    sizes = shape_of(value) if isinstance(value, torch.Tensor) else (symbolic(value),)
    return any(isinstance(size, Size) for size in sizes)


def _is_integer(node: Node) -> bool:
    dtype = node.meta["val"].dtype
    return not (dtype.is_floating_point or dtype.is_complex or dtype is torch.bool)


def _behind(node: Node) -> set[Node]:
    """Return all that a node is computed of; of a tensor's size alone, the size."""
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += [] if one.target is torch.ops.aten.sym_size.int else one.all_input_nodes
    return seen


def _look_ups(program: ExportedProgram) -> Iterator[_LookUp]:
    """Yield what is looked up in arrays by position."""
    for node in program.graph.nodes:
        if node.op == "call_function":
            yield from _looked_up(node)


def _looked_up(node: Node) -> Iterator[_LookUp]:
    target, args = str(node.target), node.args
    if target == "aten.embedding.default":
        yield _LookUp(args[0], 0, args[1])
    elif target.startswith(("aten.index.Tensor", "aten.index_put")):
        for axis, places in enumerate(args[1]):  # type: ignore[arg-type]
            if isinstance(places, Node) and _is_integer(places):
                yield _LookUp(args[0], axis, places, from_the_end=True)
    elif target.startswith(
        ("aten.index_select.", "aten.gather.", "aten.scatter", "aten.index_add", "aten.index_copy")
    ) and isinstance(args[1], int):
        ndim = args[0].meta["val"].ndim  # type: ignore[union-attr]
        if ndim:
            yield _LookUp(args[0], args[1] % ndim, args[2])


class _Known:
    """What is known of the integers in a program's tensors."""

    def __init__(self, program: ExportedProgram) -> None:
        self.found: dict[Node, Bounds] = {}
        signature = program.graph_signature
        self.stored: dict[str, Any] = {}
        for name, target in {
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }.items():
            values = {**program.state_dict, **program.constants}
            self.stored[name] = values.get(target)

    def bounds(self, value: Any) -> Bounds:
        """Return the least and the largest of some integers, as far as that is known."""
        if isinstance(value, bool) or value is None or isinstance(value, float):
            return None
        if isinstance(value, int):
            return value, value
        if not isinstance(value, Node):
            return None
        if value not in self.found:
            self.found[value] = None  # while it is looked for
            self.found[value] = self._computed(value)
        return self.found[value]

    def _computed(self, node: Node) -> Bounds:
        fake = node.meta.get("val")
        number = symbolic(fake)
        if isinstance(number, (int, Size)) and not isinstance(number, bool):
            return number, number
        if node.op == "placeholder":
            return self._constant(self.stored.get(node.name))
        if not isinstance(fake, torch.Tensor):
            return None
        target = str(node.target)
        if target in _SAME_VALUES:
            return self.bounds(node.args[0])
        if node.target is operator.getitem:
            return _item(self, node)
        rule = _RULES.get(target.rpartition(".")[0].removeprefix("aten."))
        return None if rule is None else rule(self, node)

    def _constant(self, tensor: Any) -> Bounds:
        plain = isinstance(tensor, torch.Tensor) and not tensor.is_floating_point()
        if not plain or tensor.is_complex() or not 0 < tensor.numel() < LARGEST_CONSTANT:
            return None
        if tensor.is_meta:
            return None
        return int(tensor.min()), int(tensor.max())


_Rule: TypeAlias = Callable[[_Known, Node], Bounds]


def _counted(known: _Known, node: Node) -> Bounds:
    """Bound ``arange``."""
    numbers = [known.bounds(argument) for argument in node.args]
    if not 0 < len(numbers) < 4 or any(one is None for one in numbers):
        return None
    plain = [one[0] for one in numbers if one is not None]
    start, end, step = (0, plain[0], 1) if len(plain) == 1 else (*plain[:2], *(plain[2:] or [1]))
    if not isinstance(step, int) or step == 0:
        return None
    if step < 0:
        return (end + 1, start)
    return (start, end - 1) if step == 1 else (start, start + ((end - 1 - start) // step) * step)


def _sum(sign: int) -> _Rule:
    def rule(known: _Known, node: Node) -> Bounds:
        if node.kwargs:
            return None
        a, b = (known.bounds(argument) for argument in node.args[:2])
        if a is None or b is None:
            return None
        return (a[0] + b[0], a[1] + b[1]) if sign > 0 else (a[0] - b[1], a[1] - b[0])

    return rule


def _multiple(known: _Known, node: Node) -> Bounds:
    a, b = (known.bounds(argument) for argument in node.args[:2])
    if a is None or b is None:
        return None
    a, b = (b, a) if a[0] == a[1] and isinstance(a[0], int) else (a, b)
    if b[0] != b[1] or not isinstance(b[0], int):
        return None
    low, high = a[0] * b[0], a[1] * b[0]
    return (low, high) if b[0] >= 0 else (high, low)


def _quotient(known: _Known, node: Node) -> Bounds:
    a, b = (known.bounds(argument) for argument in node.args[:2])
    floors = node.kwargs.get("rounding_mode", "floor") == "floor"
    if a is None or b is None or b[0] != b[1] or not isinstance(b[0], int) or b[0] < 1:
        return None
    return (a[0] // b[0], a[1] // b[0]) if floors else None


def _remainder(known: _Known, node: Node) -> Bounds:
    b = known.bounds(node.args[1])
    positive = b is not None and b[0] == b[1] and (isinstance(b[0], Size) or b[0] > 0)
    return (0, b[1] - 1) if b is not None and positive else None


def _clamped(known: _Known, node: Node) -> Bounds:
    """Bound what lies between two numbers, where both are given."""
    args = [*node.args[1:], None, None][:2]
    low, high = (
        known.bounds(node.kwargs.get(name, given))
        for name, given in zip(("min", "max"), args, strict=True)
    )
    own = known.bounds(node.args[0])
    lows = [one[0] for one in (low, own) if one is not None]
    highs = [one[1] for one in (high, own) if one is not None]
    return (lows[0], highs[0]) if lows and highs else None


def _filled(number: int) -> _Rule:
    return lambda known, node: (number, number)


def _full(known: _Known, node: Node) -> Bounds:
    return known.bounds(node.args[1]) if len(node.args) > 1 else None


def _negative(known: _Known, node: Node) -> Bounds:
    own = known.bounds(node.args[0])
    return None if own is None else (-own[1], -own[0])


def _place(known: _Known, node: Node) -> Bounds:
    """Bound what tells a place along an axis: ``argmax``, ``argsort``."""
    shape = shape_of(node.args[0].meta["val"])  # type: ignore[union-attr]
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    dim: Any = node.kwargs.get("dim")
    if dim is None and "dim" in names and names.index("dim") < len(node.args):
        dim = node.args[names.index("dim")]
    if dim is None and "arg" in str(node.target) and "sort" not in str(node.target):
        total: Any = 1
        for size in shape:
            total = total * size
        return 0, total - 1
    axis = -1 if dim is None else dim
    return (0, shape[axis] - 1) if isinstance(axis, int) and shape else None


def _item(known: _Known, node: Node) -> Bounds:
    """Bound the places among what gives values and places."""
    source: Any = node.args[0]
    name = str(getattr(source, "target", ""))
    indexed = name.startswith(("aten.topk.", "aten.sort.", "aten.max.dim", "aten.min.dim"))
    return _place(known, source) if indexed and node.args[1] == 1 else None


def _reversed(known: _Known, node: Node) -> Bounds:
    a, b = (known.bounds(argument) for argument in node.args[:2])
    return None if a is None or b is None or node.kwargs else (b[0] - a[1], b[1] - a[0])


_RULES: dict[str, _Rule] = {
    "add": _sum(1),
    "arange": _counted,
    "argmax": _place,
    "argmin": _place,
    "argsort": _place,
    "clamp": _clamped,
    "clip": _clamped,
    "div": _quotient,
    "floor_divide": _quotient,
    "full": _full,
    "mul": _multiple,
    "neg": _negative,
    "new_ones": _filled(1),
    "new_zeros": _filled(0),
    "ones": _filled(1),
    "ones_like": _filled(1),
    "remainder": _remainder,
    "rsub": _reversed,
    "sub": _sum(-1),
    "zeros": _filled(0),
    "zeros_like": _filled(0),
}
