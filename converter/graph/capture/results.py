"""Which result of ``forward`` each output of a captured module is.

torch.export orders the outputs of a submodule as they are computed, and drops those nobody reads.
Running the model and the captured program once on the example inputs shows it by their values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from mlxport.converter.graph.capture.by_value import Seen, places
from mlxport.converter.graph.capture.leaves import plain_path
from mlxport.converter.graph.capture.trial_runs import copied
from mlxport.converter.torch_model.calls import every_module_called
from mlxport.converter.torch_model.seeding import seeded

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


def order_results(
    model: torch.nn.Module,
    root: torch.nn.Module,
    paths: Collection[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, ModuleResults]:
    """Return, for some modules of a captured program, which result each output is.

    Args:
        model: the torch module, in eval mode.
        root: the unflattened program.
        paths: qualified names of the modules.
        args: positional example inputs.
        kwargs: keyword example inputs.

    Returns:
        captured path -> its results; paths without an answer are left out.
    """
    if not paths:
        return {}
    with _watched(model, paths) as given, torch.no_grad(), every_module_called(), seeded():
        positional, named = copied(args, kwargs)  # a cache among them grows
        model(*positional, **named)
    with _watched(root, paths) as captured, torch.no_grad(), seeded():
        root(*args, **kwargs)
    found: dict[str, ModuleResults] = {}
    for path, (result, *_) in captured.items():
        for expected in given.get(plain_path(path), []):
            known = [p for p in places(result.tensors, expected.tensors) if p is not None]
            if len(known) == len(result.tensors) and path not in found:
                shapes = tuple((seen.shape, seen.dtype) for seen in expected.tensors)
                found[path] = ModuleResults(shapes, tuple(known), result.nested)
    return found


@dataclass(frozen=True)
class _Result:
    """What a module gave at one call."""

    tensors: tuple[Seen, ...]
    nested: bool

    @classmethod
    def of(cls, result: Any) -> _Result:
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return cls(tuple(map(Seen.of, leaves)), not isinstance(result, torch.Tensor))


@contextmanager
def _watched(model: torch.nn.Module, paths: Collection[str]) -> Iterator[dict[str, list[_Result]]]:
    """Note what modules give, by path and call."""
    calls: dict[str, list[_Result]] = {}
    hooks = []
    for path, module in model.named_modules(remove_duplicate=False):
        if plain_path(path) in paths:

            def note(_: torch.nn.Module, args: Any, result: Any, path: str = path) -> None:
                calls.setdefault(path, []).append(_Result.of(result))

            hooks.append(module.register_forward_hook(note))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
