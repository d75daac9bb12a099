"""Which result of ``forward`` each output of a captured module is.

torch.export orders the outputs of a submodule as they are computed, and drops those nobody reads.
What the model gave when it was tried, and the captured program run once on the same inputs, show it
by their values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from mlxport.converter.graph.capture.by_value import Seen, places
from mlxport.converter.graph.capture.leaves import plain_path

ResultShapes = tuple[tuple[tuple[int, ...], torch.dtype], ...]


@dataclass(frozen=True)
class ModuleResults:
    """The results of one captured module.

    Attributes:
        shapes: shape and dtype of all tensors ``forward`` gives, in its order.
        places: of each captured output, which of these it is.
        nested: whether the captured module gives them in a tuple.
    """

    shapes: ResultShapes
    places: tuple[int, ...]
    nested: bool

    def order(self) -> list[int]:
        """Return the captured outputs in the order of ``forward``."""
        return sorted(range(len(self.places)), key=self.places.__getitem__)


@dataclass(frozen=True)
class GivenResult:
    """What a module gave at one call."""

    tensors: tuple[Seen, ...]
    nested: bool

    @classmethod
    def of(cls, result: Any) -> GivenResult:
        """Keep the tensors of a result, in pytree order."""
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return cls(tuple(map(Seen.of, leaves)), not isinstance(result, torch.Tensor))


class ResultsOrder:
    """Which result each output is, of some modules of a captured program; known once that has run.

    Args:
        given: path -> what the torch module gave at each of its calls.
        root: the unflattened program.
        paths: qualified names of the modules to look at.
    """

    def __init__(
        self,
        given: Mapping[str, Sequence[GivenResult]],
        root: torch.nn.Module,
        paths: Collection[str],
    ) -> None:
        self._given = given
        self._captured, self.hooks = watch_results(root, paths)

    def found(self) -> dict[str, ModuleResults]:
        """Return captured path -> its results; paths without an answer are left out."""
        found: dict[str, ModuleResults] = {}
        for path, (result, *_) in self._captured.items():
            for expected in self._given.get(plain_path(path), []):
                known = [p for p in places(result.tensors, expected.tensors) if p is not None]
                if len(known) == len(result.tensors):
                    shapes = tuple((seen.shape, seen.dtype) for seen in expected.tensors)
                    found[path] = ModuleResults(shapes, tuple(known), result.nested)
                    break
        return found


def watch_results(
    model: torch.nn.Module, paths: Collection[str] | None = None
) -> tuple[dict[str, list[GivenResult]], list[Any]]:
    """Note what submodules give.

    Args:
        model: the torch module, or an unflattened program.
        paths: qualified names of those to look at; all if left out.

    Returns:
        path -> the results of its calls, filled while the model runs; and the hooks.
    """
    calls: dict[str, list[GivenResult]] = {}
    hooks: list[Any] = []
    for path, module in model.named_modules(remove_duplicate=False):
        if path and (paths is None or plain_path(path) in paths):

            def note(_: torch.nn.Module, args: Any, result: Any, path: str = path) -> None:
                calls.setdefault(path, []).append(GivenResult.of(result))

            hooks.append(module.register_forward_hook(note))
    return calls, hooks
