"""What the emitted model takes: the parameters of its ``__call__`` and the tensors in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.fx import Node

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.ir.caches import CACHE, CacheUse, CacheValue
from mlxport.converter.graph.ir.naming import argument_name
from mlxport.converter.graph.ir.provenance import Provenance, ProvenanceKind
from mlxport.converter.graph.ir.sizes import shape_of
from mlxport.converter.graph.ir.value import Use, Value, Variable, logical_order
from mlxport.converter.plan.structure import Signature, Structure


@dataclass(frozen=True)
class Formal:
    """A parameter of a ``__call__``.

    Attributes:
        variable: what expressions refer to it by.
        name: what it is called.
        annotation: its type.
        keyword: whether it is given by name only.
    """

    variable: Variable
    name: str
    annotation: str = "mx.array"
    keyword: bool = False

    @classmethod
    def of(cls, value: Value) -> Formal:
        """Return the parameter that is one array."""
        return cls(value.variable, value.name)


class InputAxis(NamedTuple):
    """An axis of a tensor among the inputs of a model.

    Attributes:
        input: which tensor, in the order the program takes them.
        axis: its logical axis.
    """

    input: int
    axis: int


@dataclass(frozen=True)
class FixedSize:
    """A size that a converted model is fixed to, or the least that it takes.

    Attributes:
        place: the axis.
        size: what it is.
        wanted: whether it was to be dynamic, and torch.export found that it cannot be.
        least: whether any larger size will do.
    """

    place: InputAxis
    size: int
    wanted: bool = False
    least: bool = False


@dataclass(frozen=True)
class _Part:
    """A part of the arguments: its label in PyTorch, its name and expression in MLX, its cache."""

    structure: Structure
    label: str
    name: str
    code: ast.expr
    use: CacheUse | None = None


def input_values(
    signature: Signature, placeholders: Sequence[Node], cached: str = ""
) -> tuple[list[Formal], list[Any]]:
    """Return the parameters of ``__call__``, and the value for each placeholder of the graph.

    Arguments without tensors are no parameters: they were fixed when the model was captured.

    Args:
        signature: what the torch model takes.
        placeholders: of its graph, in order.
        cached: the argument that is a cache, if one is: each of its layers is one object.

    Raises:
        CaptureError: the graph takes something other than the torch model.
    """
    formals: list[Formal] = []
    places: list[_Part] = []
    for name, structure in signature.arguments.items():
        formal = _formal(name, structure, formals, name in signature.keywords)
        if name == cached:
            formal = Formal(Variable(), CACHE, "list", keyword=True)
        if structure.tensors(name):
            formals.append(formal)
        if name == cached:
            places += _layers(structure, formal)
            continue
        places += _places(_Part(structure, name, formal.name, Use(formal.variable)))
    if len(places) != len(placeholders):
        raise CaptureError(
            f"torch.export sees {len(placeholders)} inputs, forward() was given {len(places)}. "
            "Give every input of forward() by its own name."
        )
    pairs = zip(places, placeholders, strict=True)
    return formals, [_given(node, place) for place, node in pairs]


def _layers(structure: Structure, formal: Formal) -> Iterator[_Part]:
    """Yield the places of keys and values of a cache: the layer that has them."""
    for number, layer in enumerate(structure.items):
        code = ast.Subscript(Use(formal.variable), ast.Constant(number))
        use = CacheUse(number)
        for item in layer.items:
            yield _Part(item, use.label, CACHE, code, use)


def _formal(name: str, structure: Structure, others: Sequence[Formal], keyword: bool) -> Formal:
    wanted, taken = argument_name(name), {formal.name for formal in others}
    while wanted in taken:
        wanted += "_"
    plain = structure.kind == "tensor"
    return Formal(Variable(), wanted, "mx.array" if plain else structure.kind, keyword)


def _places(place: _Part) -> Iterator[_Part]:
    """Yield the place of every leaf."""
    structure = place.structure
    if structure.kind not in ("tuple", "list", "dict"):
        yield place
        return
    keys = structure.keys or range(len(structure.items))
    for key, label, item in zip(keys, structure.labels, structure.items, strict=True):
        name = f"{place.name}{key}" if isinstance(key, int) else argument_name(key)
        code = ast.Subscript(place.code, ast.Constant(key))
        yield from _places(_Part(item, place.label + label, name, code))


def _given(node: Node, place: _Part) -> Any:
    if place.structure.kind != "tensor":
        return place.structure.value
    fake = node.meta["val"]
    if not isinstance(fake, torch.Tensor):
        raise CaptureError(f"{place.label} is a tensor in forward(), {fake!r} to torch.export")
    shape, order = shape_of(fake), logical_order(fake.ndim)
    provenance = Provenance(ProvenanceKind.INPUT, place.label)
    if place.use is not None:
        return CacheValue(shape, fake.dtype, order, place.name, code=place.code, use=place.use)
    if isinstance(place.code, Use):
        return Value(shape, fake.dtype, order, place.name, provenance, variable=place.code.key)
    return Value(shape, fake.dtype, order, place.name, provenance, code=place.code)
