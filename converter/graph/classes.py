"""Find the classes of the emitted model: one per distinct module, however often it is built.

Modules of the same torch class whose attributes and bodies agree become one class. The constructor
arguments in which they differ become the class's own constructor arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlxport.converter.graph.body import Array, Body, Lowered
from mlxport.converter.graph.naming import Kind, Names, class_name, kind_of
from mlxport.converter.rules.registry import LayerSpec


@dataclass
class Built:
    """An attribute that is built by a constructor: a layer, or one of the model's own classes.

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
        arguments: the values of the class's parameters for this instance.
    """

    path: str
    attributes: dict[str, Attribute]
    frozen: list[str]
    body: Body | None
    arguments: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class ClassGroup:
    """A class of the emitted model.

    Attributes:
        name: its name in the source.
        instances: all modules it stands for.
        parameters: names of its constructor arguments.
    """

    name: str
    instances: list[Instance]
    parameters: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Parameter:
    """Stands in a constructor call for a parameter of the class."""

    name: str


def find_classes(lowered: Lowered, names: Names) -> list[ClassGroup]:
    """Return the classes of a lowered model, each after those it uses; the model's own is last."""
    return _Finder(lowered, names).run()


class _Finder:
    def __init__(self, lowered: Lowered, names: Names) -> None:
        self.lowered = lowered
        self.names = names
        self.groups: dict[Hashable, ClassGroup] = {}
        self.taken = {*lowered.imports, "Path", "Model", "load"}
        self.used = _ancestors([*lowered.bodies, *lowered.leaves, *lowered.arrays])

    def run(self) -> list[ClassGroup]:
        pending = self._class_paths()
        level: dict[int, list[str]] = {}
        for path in pending:
            level.setdefault(_height(path, pending), []).append(path)
        self.group_of: dict[str, tuple[ClassGroup, Instance]] = {}
        for height in sorted(level):
            fresh = []
            for path in level[height]:
                instance = self._instance(path)
                group = self._join(instance)
                self.group_of[path] = (group, instance)
                fresh.append(group)
            for group in dict.fromkeys(fresh):
                _parametrise(group)
        return list(self.groups.values())

    def _class_paths(self) -> list[str]:
        """Paths of all modules that become instances of a class of the model's own."""
        return [
            path
            for path in self.used
            if path == ""
            or (
                path not in self.lowered.leaves
                and path not in self.lowered.arrays
                and self._kind(path) is Kind.CLASS
            )
        ]

    def _kind(self, path: str) -> Kind:
        return kind_of(self.names.model.get_submodule(path))

    # -- attributes ------------------------------------------------------------------------------

    def _instance(self, path: str) -> Instance:
        frozen: list[str] = []
        attributes: dict[str, Attribute] = {}
        if path == "" and self.names.root_is_list:
            attributes["layers"] = self._container("")
        else:
            for child in self._children(path):
                name = self.names.segment(path, child.rpartition(".")[2])
                attributes[name] = self._attribute(child)
                if child in self.lowered.arrays and not self.lowered.arrays[child].trainable:
                    frozen.append(name)
        return Instance(path, attributes, frozen, self.lowered.bodies.get(path))

    def _children(self, path: str) -> list[str]:
        """Paths of what stands directly below a module, in torch's order, arrays first."""
        prefix = f"{path}." if path else ""
        below = [p for p in self.used if p.startswith(prefix) and _depth(p) == _depth(path) + 1]
        module = self.names.model.get_submodule(path)
        order = {name: i for i, (name, _) in enumerate(module.named_children())}
        return sorted(below, key=lambda p: order.get(p.rpartition(".")[2], -1))

    def _attribute(self, path: str) -> Attribute:
        if path in self.lowered.leaves:
            return _layer(self.lowered.leaves[path].spec)
        if path in self.lowered.arrays:
            return _zeros(self.lowered.arrays[path])
        if self._kind(path) is Kind.CLASS:
            group, instance = self.group_of[path]
            return Built(group.name, [], {}, group=group, hints=[instance.path])
        return self._container(path)

    def _container(self, path: str) -> Container:
        children = {p.rpartition(".")[2]: p for p in self._children(path)}
        if self._kind(path) is Kind.DICT:
            keys = [self.names.segment(path, name) for name in children]
            return Container(keys, [self._attribute(child) for child in children.values()])
        module = self.names.model.get_submodule(path)
        size = max(len(list(module.children())), len(module._parameters))
        return Container(
            None,
            [
                self._attribute(children[str(i)])
                if str(i) in children
                else Built("nn.Identity", [], {})
                for i in range(size)
            ],
        )

    # -- groups ----------------------------------------------------------------------------------

    def _join(self, instance: Instance) -> ClassGroup:
        module = self.names.model.get_submodule(instance.path)
        name = class_name(module)
        key = (
            type(module),
            tuple((n, _structure(a)) for n, a in instance.attributes.items()),
            tuple(instance.frozen),
            None if instance.body is None else (_signature(instance.body), instance.body.text),
        )
        if key not in self.groups:
            unique, n = name, 2
            while unique in self.taken:
                unique, n = f"{name}{n}", n + 1
            self.taken.add(unique)
            self.groups[key] = ClassGroup(unique, [])
        self.groups[key].instances.append(instance)
        return self.groups[key]


def _signature(body: Body) -> tuple[str, ...]:
    return tuple(value.name for value in body.inputs)


def _structure(attribute: Attribute) -> Hashable:
    """What two attributes must share to be written by one line of a class."""
    if isinstance(attribute, Container):
        keys = None if attribute.keys is None else tuple(attribute.keys)
        return (keys, tuple(_structure(item) for item in attribute.items))
    return (attribute.target, len(attribute.args), id(attribute.group))


def _layer(spec: LayerSpec) -> Built:
    parameters = list(inspect.signature(spec.target).parameters.values())
    module = spec.target.__module__
    name = getattr(spec.target, "__name__", str(spec.target))
    return Built(
        name if module.startswith("mlxport.layers") else f"nn.{name}",
        list(spec.args),
        dict(spec.kwargs),
        {p.name: p.default for p in parameters if p.default is not p.empty},
        [p.name for p in parameters[: len(spec.args)]],
    )


def _zeros(array: Array) -> Built:
    dtype = str(array.tensor.dtype).removeprefix("torch.")
    kwargs = {} if dtype == "float32" else {"dtype": dtype}
    return Built("mx.zeros", [array.stored_shape], kwargs, {"dtype": "float32"}, ["shape"])


def _parametrise(group: ClassGroup) -> None:
    """Give a class a constructor argument for each value in which its instances differ."""
    slots = [list(_slots(instance)) for instance in group.instances]
    wanted = [
        dict.fromkeys(key for built in column for key in built.kwargs)
        for column in zip(*slots, strict=True)
    ]
    for row in slots:
        for built, keys in zip(row, wanted, strict=True):
            built.kwargs = {k: built.kwargs.get(k, built.defaults.get(k)) for k in keys}
            if built.group is not None:
                instance = next(i for i in built.group.instances if i.path == built.hints[0])
                built.args, built.hints = list(instance.arguments), list(built.group.parameters)
    chosen: dict[str, tuple[Any, ...]] = {}
    for column in zip(*slots, strict=True):
        _fill_column(column, chosen)
    for index, instance in enumerate(group.instances):
        instance.arguments = [values[index] for values in chosen.values()]
    group.parameters = list(chosen)


def _fill_column(column: Sequence[Built], chosen: dict[str, tuple[Any, ...]]) -> None:
    """Replace the values in which one attribute's constructor differs by parameters."""
    first = column[0]
    for i in range(len(first.args)):
        values = tuple(built.args[i] for built in column)
        if len(set(map(repr, values))) > 1:
            hint = first.hints[i] if i < len(first.hints) else "size"
            first.args[i] = Parameter(_name_for(values, hint, chosen))
    for key in list(first.kwargs):
        values = tuple(built.kwargs[key] for built in column)
        if len(set(map(repr, values))) > 1:
            first.kwargs[key] = Parameter(_name_for(values, key, chosen))
        elif key in first.defaults and values[0] == first.defaults[key]:
            del first.kwargs[key]


def _name_for(values: tuple[Any, ...], hint: str, chosen: dict[str, tuple[Any, ...]]) -> str:
    """Return the parameter that has these values in the instances, adding one if there is none."""
    for name, known in chosen.items():
        if repr(known) == repr(values):  # 1, 1.0 and True are equal but not the same argument
            return name
    name, n = hint, 2
    while name in chosen:
        name, n = f"{hint}{n}", n + 1
    chosen[name] = values
    return name


def _slots(instance: Instance) -> Iterable[Built]:
    def walk(attribute: Attribute) -> Iterable[Built]:
        if isinstance(attribute, Built):
            yield attribute
        else:
            for item in attribute.items:
                yield from walk(item)

    for attribute in instance.attributes.values():
        yield from walk(attribute)


def _ancestors(paths: Iterable[str]) -> list[str]:
    """Return all paths and every path above them, without repetition."""
    found: dict[str, None] = {"": None}
    for path in paths:
        segments = path.split(".") if path else []
        found.update(dict.fromkeys(".".join(segments[: i + 1]) for i in range(len(segments))))
    return list(found)


def _height(path: str, paths: Sequence[str]) -> int:
    """How many classes stand below a class at the most."""
    prefix = f"{path}." if path else ""
    below = [p for p in paths if p != path and p.startswith(prefix)]
    return 0 if not below else 1 + max(map(_depth, below)) - _depth(path)


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0
