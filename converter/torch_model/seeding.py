"""Find the random numbers that a model does not draw from PyTorch's own generator as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# no seed that a model would choose
_SEED = 7_043_165_212_903


@contextmanager
def seeded() -> Iterator[None]:
    """Draw the same random numbers in every run, and leave the random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        yield


class SeedingWatch(TorchDispatchMode):
    """Finds draws whose numbers the model itself decides; to be open while it runs `seeded`.

    Args:
        place: returns the line of the model that runs.

    Attributes:
        of_generators: where it draws from a ``torch.Generator`` that it names.
        of_seeds: where it draws from PyTorch's generator, having seeded it.
    """

    # conditions, loops and the like are called as without it
    supports_higher_order_operators = True

    def __init__(self, place: Callable[[], Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._place = place
        self.of_generators: list[str] = []
        self.of_seeds: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            leaves = tree_leaves((args, kwargs))
            if any(isinstance(leaf, torch.Generator) for leaf in leaves):
                self.of_generators.append(str(self._place() or func))
            elif torch.default_generator.initial_seed() != _SEED:
                self.of_seeds.append(str(self._place() or func))
        return func(*args, **(kwargs or {}))
