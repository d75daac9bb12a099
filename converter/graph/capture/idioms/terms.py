"""What a captured call computes, as a term, and how terms are matched with patterns.

A term is a number, an input, an own tensor along one axis, or an operation on terms. Products and
sums are flat, their numbers gathered in front, and casts, views of own tensors and the spelling of
a power are gone: of all the ways to write one formula few are left for a pattern to match.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.fx import Node

Term: TypeAlias = Any  # a number, a Node, an Along, or a tuple: an operation and its operands
Bound: TypeAlias = "Mapping[str, Any]"  # variable of a pattern -> what it stands for

CASTS = frozenset({"aten.to.dtype", "aten.to.dtype_layout", "aten.type_as.default"})
_VIEWS = frozenset(
    {"aten.view.default", "aten.reshape.default", "aten.unsqueeze.default", "aten.slice.Tensor"}
)
_FUNCTIONS = ("tanh", "erf", "sigmoid", "sqrt", "rsqrt")  # of one operand


@dataclass(frozen=True)
class Along:
    """An own tensor of one axis, seen along an axis of the input.

    Attributes:
        axis: counted from the last, as -1.
        name: of the tensor in its module.
    """

    axis: int
    name: str


@dataclass(frozen=True)
class Wildcard:
    """What a pattern leaves open.

    Attributes:
        name: two of one name stand for the same.
        admits: whether it may stand for a term.
    """

    name: str
    admits: Callable[[Term], bool]


def any_number(name: str) -> Wildcard:
    """Return a variable for a number."""
    return Wildcard(name, lambda term: isinstance(term, float))


def any_input(name: str) -> Wildcard:
    """Return a variable for an input."""
    return Wildcard(name, lambda term: isinstance(term, Node))


def product(*factors: Term) -> Term:
    """Return the product of terms."""
    return _gathered("mul", 1.0, lambda a, b: a * b, factors)


def summed(*parts: Term) -> Term:
    """Return the sum of terms."""
    return _gathered("add", 0.0, lambda a, b: a + b, parts)


def _gathered(
    name: str, neutral: float, joined: Callable[[float, float], float], parts: Sequence[Term]
) -> Term:
    literal, kept = neutral, []
    for part in parts:
        inner = part[1:] if isinstance(part, tuple) and part[0] == name else (part,)
        for one in inner:
            if isinstance(one, float):
                literal = joined(literal, one)
            else:
                kept.append(one)
    if not kept:
        return literal
    if len(kept) == 1 and literal == neutral:
        return kept[0]
    return (name, literal, *kept)


def _reciprocal(term: Term) -> Term:
    if isinstance(term, float) and term != 0:
        return 1.0 / term
    if isinstance(term, tuple) and term[0] == "sqrt":
        return ("rsqrt", term[1])
    return ("reciprocal", term)


def _difference(a: Term, b: Term) -> Term:
    return summed(a, -b) if isinstance(b, float) else ("sub", a, b)


def _named(name: str) -> Callable[[Term], Term]:
    return lambda term: (name, term)


_ARITHMETIC: dict[str, Callable[..., Term]] = {
    "aten.mul.Tensor": product,
    "aten.add.Tensor": summed,
    "aten.sub.Tensor": _difference,
    "aten.div.Tensor": lambda a, b: product(a, _reciprocal(b)),
    "aten.reciprocal.default": _reciprocal,
    "aten.neg.default": lambda a: product(-1.0, a),
    **{f"aten.{name}.default": _named(name) for name in _FUNCTIONS},
}


class Terms:
    """Reads the terms of one call of a module.

    Args:
        ops: what the call computes.
        tensors: placeholder -> name of the module's tensor it stands for.
    """

    def __init__(self, ops: Collection[Node], tensors: Mapping[Node, str]) -> None:
        self.ops = frozenset(ops)
        self.tensors = tensors

    def of(self, value: Any) -> Term:
        """Return the term of an argument; what no pattern knows is a term of its own."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, (list, tuple)):
            return ("list", *map(self.of, value))
        if not isinstance(value, Node):
            return ("given", value)
        value = uncast(value)
        if (seen := self.along(value)) is not None:
            return seen
        if value not in self.ops:
            return ("own", self.tensors[value]) if value in self.tensors else value
        return self._computed(value, str(value.target), [*value.args])

    def along(self, node: Node) -> Along | None:
        """Return the own tensor of one axis that a node is, or a view of it that adds axes."""
        held, shape = uncast(node), _shape(node)
        while held in self.ops and str(held.target) in _VIEWS | CASTS:
            held = uncast(held.all_input_nodes[0])
        if held not in self.tensors or len(_shape(held)) != 1:
            return None
        long = [axis - len(shape) for axis, size in enumerate(shape) if size != 1]
        if [shape[axis] for axis in long] != list(_shape(held)):
            return None
        return Along(long[0], self.tensors[held])

    def _computed(self, node: Node, op: str, args: list[Any]) -> Term:
        if op in CASTS:
            return self.of(args[0])
        if op in ("aten.pow.Tensor_Scalar", "aten.square.default"):
            return self._power(node, args[0], args[1] if len(args) > 1 else 2)
        if op in ("aten.mean.dim", "aten.var.correction", "aten.var.dim"):
            return self._statistic(node)
        if op in _ARITHMETIC and not node.kwargs:
            return _ARITHMETIC[op](*map(self.of, args))
        return self._as_written(node)

    def _as_written(self, node: Node) -> Term:
        if not isinstance(node.target, torch._ops.OpOverload):
            return ("given", node)
        return (str(node.target), *map(self.of, arguments_by_name(node).values()))

    def _power(self, node: Node, base: Any, exponent: Any) -> Term:
        term = self.of(base)
        if exponent in (2, 3):
            return product(*[term] * int(exponent))
        if exponent in (0.5, -0.5):
            return ("sqrt" if exponent > 0 else "rsqrt", term)
        return self._as_written(node)

    def _statistic(self, node: Node) -> Term:
        """Return a mean over one axis that is kept, or a variance as a mean of squares."""
        given = arguments_by_name(node)
        term, axes = self.of(given["self"]), given["dim"]
        biased = given.get("correction", 1) == 0 or given.get("unbiased") is False
        plain = given.get("dtype") is None and ("mean" in str(node.target) or biased)
        if not (given["keepdim"] and axes and len(axes) == 1 and plain):
            return self._as_written(node)
        axis = axes[0] if axes[0] < 0 else axes[0] - len(_shape(node))
        if "mean" in str(node.target):
            return ("mean", axis, term)
        centred = ("sub", term, ("mean", axis, term))
        return ("mean", axis, product(centred, centred))


def uncast(node: Node) -> Node:
    """Return the node whose very result a node gives: a cast to the dtype there is makes none.

    torch.export lets whatever reads a tensor after such a cast, in any module, read the cast.
    """
    while str(node.target) in CASTS and _dtype(node.all_input_nodes[0]) == _dtype(node):
        node = node.all_input_nodes[0]
    return node


def arguments_by_name(node: Node) -> dict[str, Any]:
    """Return the arguments of an op of ATen's by their names, defaults among them."""
    schema: Any = node.target._schema  # type: ignore[union-attr]
    positional = [*node.args, *[None] * len(schema.arguments)]
    return {
        argument.name: (
            positional[place]
            if place < len(node.args)
            else node.kwargs.get(argument.name, argument.default_value)
        )
        for place, argument in enumerate(schema.arguments)
    }


def matches(pattern: Term, term: Term, bound: Bound | None = None) -> Iterator[Bound]:
    """Yield the ways in which a pattern, a term with variables, is a term.

    The operands of products and sums are matched in any order.
    """
    bound = bound or {}
    if isinstance(pattern, Wildcard):
        if pattern.name in bound:
            if bound[pattern.name] == term:
                yield bound
        elif pattern.admits(term):
            yield {**bound, pattern.name: term}
    elif isinstance(pattern, float):
        if isinstance(term, float) and abs(pattern - term) <= 1e-7 * abs(pattern):
            yield bound
    elif isinstance(pattern, tuple) and isinstance(term, tuple):
        if pattern[0] == term[0] and len(pattern) == len(term):
            in_any_order = pattern[0] in ("mul", "add")
            yield from _operands(pattern[1:], term[1:], bound, in_any_order=in_any_order)
    elif pattern == term:
        yield bound


def _operands(
    patterns: Sequence[Term], terms: Sequence[Term], bound: Bound, *, in_any_order: bool
) -> Iterator[Bound]:
    if not patterns:
        yield bound
        return
    first, *others = patterns
    for place in range(len(terms) if in_any_order else 1):
        for now in matches(first, terms[place], bound):
            left = [*terms[:place], *terms[place + 1 :]]
            yield from _operands(others, left, now, in_any_order=in_any_order)


def _dtype(node: Node) -> torch.dtype | None:
    return getattr(node.meta.get("val"), "dtype", None)


def _shape(node: Node) -> tuple[Any, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()
