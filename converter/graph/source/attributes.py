"""Attributes of the classes of the emitted model: layers, arrays, instances of other classes."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mlxport.converter.graph.ir.body import Body, StoredArray
from mlxport.converter.graph.ir.user_files import is_mlx
from mlxport.converter.graph.source.format import Code
from mlxport.converter.rules.registry import LayerSpec


@dataclass
class Built:
    """An attribute that is built by a constructor: a layer, or a class of the emitted model.

    Attributes:
        target: what is called (``nn.Conv3d``, ``ResidualUnit``, ``mx.zeros``).
        args: positional arguments.
        kwargs: keyword arguments.
    """

    target: str
    args: list[Any]
    kwargs: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)
    group: ClassGroup | None = None


@dataclass
class Container:
    """An attribute that is a plain list or dict of attributes."""

    keys: list[str] | None
    items: list[Attribute]


Attribute = Built | Container


@dataclass
class Instance:
    """One module of the model that becomes an instance of a class.

    Attributes:
        path: qualified name of the torch module.
        attributes: name -> how it is built, in order.
        frozen: names of the arrays that are not trained.
        body: what it computes; None for a mere namespace.
        code: the statements of the body.
        arguments: the values of the class's parameters for this instance.
    """

    path: str
    attributes: dict[str, Attribute]
    frozen: list[str]
    body: Body | None
    code: Code = ()
    arguments: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class ClassGroup:
    """A class of the emitted model.

    Attributes:
        name: its name in the source.
        instances: all modules it stands for.
        parameters: names of its constructor arguments.
        settings: attribute -> the argument it is set to, for numbers that its body reads.
        code: the statements of its body where it reads such numbers; None if it reads none.
    """

    name: str
    instances: list[Instance]
    parameters: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    code: Code | None = None


@dataclass(frozen=True)
class Parameter:
    """Stands in a constructor call for a parameter of the class."""

    name: str


def structure(attribute: Attribute) -> Hashable:
    """What two attributes must share to be written by one line of a class."""
    if isinstance(attribute, Container):
        keys = None if attribute.keys is None else tuple(attribute.keys)
        return (keys, tuple(structure(item) for item in attribute.items))
    return (attribute.target, len(attribute.args), id(attribute.group))


def layer_call(spec: LayerSpec) -> Built:
    """Return the constructor call of a layer."""
    parameters = list(inspect.signature(spec.target).parameters.values())
    name = getattr(spec.target, "__name__", str(spec.target))
    return Built(
        f"nn.{name}" if is_mlx(spec.target) else name,
        list(spec.args),
        dict(spec.kwargs),
        {p.name: p.default for p in parameters if p.default is not p.empty},
        [p.name for p in parameters[: len(spec.args)]],
    )


def zeros_call(array: StoredArray) -> Built:
    """Return the call that makes room for an array until its weights are loaded."""
    dtype = str(array.tensor.dtype).removeprefix("torch.")
    kwargs = {} if dtype == "float32" else {"dtype": "bool_" if dtype == "bool" else dtype}
    return Built("mx.zeros", [array.stored_shape], kwargs, {"dtype": "float32"}, ["shape"])


def slots(instance: Instance) -> Iterable[Built]:
    """Yield every constructor call in the attributes of an instance, in order."""

    def walk(attribute: Attribute) -> Iterable[Built]:
        if isinstance(attribute, Built):
            yield attribute
        else:
            for item in attribute.items:
                yield from walk(item)

    for attribute in instance.attributes.values():
        yield from walk(attribute)
