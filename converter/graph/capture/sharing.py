"""Modules and parameters with several names (aliases): the emitted model has each in one place.

A module that uses an alias of something outside of itself gets no class: its graph is written into
the body of a caller that has both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from mlxport.converter.rules.registry import Rule

T = TypeVar("T")


@dataclass(frozen=True)
class Sharing:
    """The one place of each module and parameter that has several names.

    Attributes:
        modules: alias of a module -> the path of its place.
        tensors: alias of a parameter -> the name of its place.
        opened: paths of the modules that use something outside of themselves.
    """

    modules: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    opened: frozenset[str] = frozenset()

    def module(self, path: str) -> str:
        """Return the path of a module's place; a module above it may be the alias."""
        if path in self.modules or not path:
            return self.modules.get(path, path)
        parent, dot, name = path.rpartition(".")
        return f"{self.module(parent)}{dot}{name}"

    def tensor(self, path: str) -> str:
        """Return the name of a tensor's place."""
        parent, dot, name = path.rpartition(".")
        path = f"{self.module(parent)}{dot}{name}"
        return self.tensors.get(path, path)


def shared_modules(model: torch.nn.Module) -> dict[str, str]:
    """Return other path -> first path of the modules that bear several names.

    Modules without tensors are not among them: two of them do what one does.
    """
    first = {id(module): path for path, module in model.named_modules()}
    return {
        path: first[id(module)]
        for path, module in model.named_modules(remove_duplicate=False)
        if first[id(module)] != path and module.state_dict()
    }


def by_every_name(model: torch.nn.Module, found: Mapping[str, T]) -> dict[str, T]:
    """Return what was found of modules, by one name each, by every name they bear."""
    names: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(path)
    return {
        path: found[path if path in found else next(name for name in several if name in found)]
        for several in names.values()
        if any(name in found for name in several)
        for path in several
    }


def find_sharing(model: torch.nn.Module, leaves: Mapping[str, Rule]) -> Sharing:
    """Return the places of all that has several names.

    The place of a parameter of several modules is an embedding if one of them is, or else one that
    becomes a layer, or else where it was registered first.

    Args:
        model: the torch module.
        leaves: path -> the rule of the modules that may become layers.
    """
    modules = shared_modules(model)
    names: dict[int, list[str]] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        if path.rpartition(".")[0] not in modules:
            names.setdefault(id(parameter), []).append(path)
    tensors = {}
    for several in names.values():
        place = min(several, key=lambda path: _rank(leaves.get(path.rpartition(".")[0])))
        tensors.update({path: place for path in several if path != place})
    opened = {
        outer
        for aliases in (modules, tensors)
        for path, place in aliases.items()
        for outer in _ancestors(path, modules)
        if not place.startswith(f"{outer}.")
    }
    return Sharing(modules, tensors, frozenset(opened))


def _rank(rule: Rule | None) -> int:
    if rule is None:
        return 2
    return 0 if rule.source is torch.nn.Embedding else 1


def _ancestors(path: str, modules: Collection[str]) -> Iterator[str]:
    """Yield the paths above a path, unless one of them is an alias itself."""
    segments = path.split(".")[:-1]
    outer = [".".join(segments[: i + 1]) for i in range(len(segments))]
    if not any(ancestor in modules for ancestor in outer):
        yield from outer
