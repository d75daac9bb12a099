"""Freeze in the emitted model what PyTorch's model does not train, where it trains the rest.

A model none of whose parameters asks for a gradient is ready for inference, not frozen in parts;
it stays trainable in MLX.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.ir.code import to_ast, to_source
from mlxport.converter.graph.ir.naming import ModelNames, ModuleKind, kind_of

_logger = logging.getLogger(__name__)


@dataclass
class _Parameters:
    """What is trained and what is not of the parameters right below a module."""

    trained: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)


def freezing_lines(lowered: Lowered, names: ModelNames) -> list[str]:
    """Return the statements that freeze what has ``requires_grad=False`` in PyTorch.

    They stand in the model's own ``__init__``, so that modules of one class may differ in it.

    Args:
        lowered: the model.
        names: its names.
    """
    asked = {p.requires_grad for p in names.model.parameters()}
    return [] if len(asked) < 2 else list(_Freezing(lowered, names).lines(""))


class _Freezing:
    def __init__(self, lowered: Lowered, names: ModelNames) -> None:
        self.names = names
        self.requires_grad = {
            name: parameter.requires_grad
            for name, parameter in names.model.named_parameters(remove_duplicate=False)
        }
        self.below: dict[str, _Parameters] = {}
        for path, leaf in lowered.leaves.items():
            for entry in leaf.spec.entries:
                self._note(path, entry.targets, [f"{path}.{key}" for key in entry.sources])
        for path in lowered.arrays_outside_layers():
            self._note(*self._attribute(path), [path])

    def _note(self, path: str, targets: tuple[str, ...], sources: list[str]) -> None:
        asked = [self.requires_grad[name] for name in sources if name in self.requires_grad]
        if asked:
            found = self.below.setdefault(path, _Parameters())
            (found.trained if any(asked) else found.frozen).update(targets)

    def _attribute(self, path: str) -> tuple[str, tuple[str, ...]]:
        """Return the module that has an array, by itself or in a list, and the attribute."""
        parent, _, name = path.rpartition(".")
        while parent and kind_of(self.names.model.get_submodule(parent)) is not ModuleKind.CLASS:
            parent, _, name = parent.rpartition(".")
        return parent, (self.names.segment(parent, name),)

    def lines(self, path: str) -> Iterator[str]:
        """Yield the statements for a module and what is below it."""
        inside = self._inside(path)
        if not any(parameters.frozen for parameters in inside):
            return
        module = self.names.model.get_submodule(path)
        children = [f"{path}.{name}" if path else name for name in module._modules]
        whole = path and not any(parameters.trained for parameters in inside)
        if whole and (path in self.below or kind_of(module) is ModuleKind.CLASS):
            yield f"{self._reference(path)}.freeze()"
        elif whole and kind_of(module) is ModuleKind.LIST and self._are_modules(children):
            yield f"for layer in {self._reference(path)}:"
            yield "    layer.freeze()"
        else:
            yield from self._attributes(path)
            for child in children:
                yield from self.lines(child)

    def _inside(self, path: str) -> list[_Parameters]:
        return [p for at, p in self.below.items() if not path or f"{at}.".startswith(f"{path}.")]

    def _are_modules(self, paths: Sequence[str]) -> bool:
        """Whether all of these are MLX modules, several of which have parameters."""
        modules = map(self.names.model.get_submodule, paths)
        plain = all(
            path in self.below or kind_of(module) is ModuleKind.CLASS
            for path, module in zip(paths, modules, strict=True)
        )
        return plain and sum(map(bool, map(self._inside, paths))) > 1

    def _attributes(self, path: str) -> Iterator[str]:
        parameters = self.below.get(path, _Parameters())
        if mixed := parameters.frozen & parameters.trained:
            _logger.info("%s: %s are frozen in part, and trained in MLX", path, sorted(mixed))
        if frozen := sorted(parameters.frozen - parameters.trained):
            keys = frozen[0] if len(frozen) == 1 else frozen
            yield f"{self._reference(path)}.freeze(keys={to_source(to_ast(keys))}, recurse=False)"

    def _reference(self, path: str) -> str:
        return to_source(self.names.reference("", path)) if path else "self"
