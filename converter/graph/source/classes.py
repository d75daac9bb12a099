"""Find the classes of the emitted model: one per distinct module, however often it is built.

Modules of the same torch class whose attributes and bodies agree become one class. The constructor
arguments, and a few numbers of the bodies, in which they differ become constructor arguments of
the class.
"""

from __future__ import annotations

import builtins
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from mlxport.converter.graph.ir.body import Body, Lowered
from mlxport.converter.graph.ir.naming import (
    ModelNames,
    ModuleKind,
    children_of,
    class_name,
    kind_of,
    public_identifier,
)
from mlxport.converter.graph.ir.value import expression_structure
from mlxport.converter.graph.source.attributes import (
    Attribute,
    Built,
    ClassGroup,
    Container,
    Instance,
    layer_call,
    structure,
    zeros_call,
)
from mlxport.converter.graph.source.body_numbers import differences, skeleton
from mlxport.converter.graph.source.format import Code
from mlxport.converter.graph.source.parameters import parametrise


def find_classes(
    lowered: Lowered, names: ModelNames, codes: Mapping[str, Code]
) -> list[ClassGroup]:
    """Return the classes of a lowered model, each after those it uses; the root class is last."""
    return _Finder(lowered, names, codes).run()


class _Finder:
    def __init__(self, lowered: Lowered, names: ModelNames, codes: Mapping[str, Code]) -> None:
        self.lowered = lowered
        self.names = names
        self.codes = codes
        self.groups: dict[Hashable, ClassGroup] = {}
        self.taken = {*lowered.scope.imports, *dir(builtins), "Path", "Model", "load"}
        self.used = _ancestors([*lowered.bodies, *lowered.leaves, *lowered.arrays_outside_layers()])

    def run(self) -> list[ClassGroup]:
        pending = self._class_paths()
        level: dict[int, list[str]] = {}
        for path in pending:
            level.setdefault(_height(path, pending), []).append(path)
        self.group_of: dict[str, tuple[ClassGroup, Instance]] = {}
        for height in sorted(level):
            instances = [self._instance(path) for path in level[height]]
            fresh = []
            for instance, key in self._keyed(instances):
                group = self._join(instance, key)
                self.group_of[instance.path] = (group, instance)
                fresh.append(group)
            for group in dict.fromkeys(fresh):
                parametrise(group, partial(self._number_name, group))
        return list(self.groups.values())

    def _class_paths(self) -> list[str]:
        """Paths of all modules that become instances of an emitted class."""
        return [
            path
            for path in self.used
            if path == ""
            or (
                path not in self.lowered.leaves
                and path not in self.lowered.arrays
                and self._kind(path) is ModuleKind.CLASS
            )
        ]

    def _kind(self, path: str) -> ModuleKind:
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
        body, code = self.lowered.bodies.get(path), self.codes.get(path, ())
        return Instance(path, attributes, frozen, body, code)

    def _children(self, path: str) -> list[str]:
        """Paths of what stands directly below a module, in torch's order, arrays first."""
        prefix = f"{path}." if path else ""
        below = [p for p in self.used if p.startswith(prefix) and _depth(p) == _depth(path) + 1]
        module = self.names.model.get_submodule(path)
        order = {name: i for i, name in enumerate(module._modules)}
        return sorted(below, key=lambda p: order.get(p.rpartition(".")[2], -1))

    def _attribute(self, path: str) -> Attribute:
        if path in self.lowered.leaves:
            return layer_call(self.lowered.leaves[path].spec)
        if path in self.lowered.arrays:
            return zeros_call(self.lowered.arrays[path])
        if self._kind(path) is ModuleKind.CLASS:
            group, instance = self.group_of[path]
            return Built(group.name, [], {}, group=group, hints=[instance.path])
        return self._container(path)

    def _container(self, path: str) -> Container:
        children = {p.rpartition(".")[2]: p for p in self._children(path)}
        if self._kind(path) is ModuleKind.DICT:
            keys = [self.names.segment(path, name) for name in children]
            return Container(keys, [self._attribute(child) for child in children.values()])
        module = self.names.model.get_submodule(path)
        size = len(children_of(module))
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

    def _keyed(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Hashable]]:
        """Yield instances with what those share that become one class.

        Their bodies are equal, or differ in a few numbers only.
        """
        alike: dict[Hashable, list[Instance]] = {}
        keys = [self._key(instance, but_for_numbers=True) for instance in instances]
        for instance, key in zip(instances, keys, strict=True):
            alike.setdefault(key, []).append(instance)
        for instance, key in zip(instances, keys, strict=True):
            joined = differences([i.code for i in alike[key]]) is not None
            yield instance, key if joined else self._key(instance)

    def _key(self, instance: Instance, *, but_for_numbers: bool = False) -> Hashable:
        body = instance.body
        code = (
            skeleton(instance.code)
            if but_for_numbers
            else expression_structure([*instance.code], {})
        )
        return (
            type(self.names.model.get_submodule(instance.path)),
            tuple((n, structure(a)) for n, a in instance.attributes.items()),
            tuple(instance.frozen),
            None if body is None else (_signature(body), code),
        )

    def _join(self, instance: Instance, key: Hashable) -> ClassGroup:
        name = class_name(self.names.model.get_submodule(instance.path))
        if key not in self.groups:
            unique, n = name, 2
            while unique in self.taken:
                unique, n = f"{name}{n}", n + 1
            self.taken.add(unique)
            self.groups[key] = ClassGroup(unique, [])
        self.groups[key].instances.append(instance)
        return self.groups[key]

    def _number_name(self, group: ClassGroup, values: tuple[float, ...]) -> str:
        """Return what the torch modules of a class call a number that differs between them."""
        modules = [self.names.model.get_submodule(i.path) for i in group.instances]
        for name in vars(modules[0]):
            values_of = [getattr(module, name, None) for module in modules]
            if all(type(h) is type(v) and h == v for h, v in zip(values_of, values, strict=True)):
                return public_identifier(name.rstrip("_"))
        return "size" if isinstance(values[0], int) else "factor"


def _signature(body: Body) -> tuple[str, ...]:
    return tuple(formal.name for formal in body.parameters)


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
