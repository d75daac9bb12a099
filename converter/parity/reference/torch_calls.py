"""Calls of a torch model's modules, as they are recorded while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.reference.kept_values import Kept
from mlxport.converter.torch_model.calls import CallArguments


@dataclass(frozen=True, eq=False)
class Made:
    """One call of a submodule.

    Attributes:
        path: of the submodule.
        number: how many calls of it came before.
        given: copies of its arguments, if kept; what several calls were given is copied once.
        draws: which random draws were made inside it.
        outputs: the values kept of its result.
        span: how many calls had begun before it, and when it ended.
        labels: of the tensors among its arguments, in a run in which some are known.
    """

    path: str
    number: int
    given: CallArguments | None
    draws: tuple[int, int]
    outputs: list[Kept]
    span: tuple[int, int]
    labels: tuple[torch.Tensor | None, ...] = ()

    def within(self, other: Made) -> bool:
        """Tell whether another call was going on when this one began."""
        return other.span[0] < self.span[0] < other.span[1]


OnCall = Callable[[Made], None]


def first_names(module: torch.nn.Module, paths: Sequence[str]) -> dict[str, str]:
    """Map every path asked for to the first that names the same module."""
    names: dict[int, str] = {}
    canonical, unknown = {}, []
    for path in dict.fromkeys(path for path in paths if path):
        try:
            found = module.get_submodule(path)
        except AttributeError:
            unknown.append(path)
            continue
        canonical[path] = names.setdefault(id(found), path)
    if unknown:
        raise ParityError.listing(
            f"{type(module).__name__} has no such submodules:",
            unknown,
            "Is this the model the conversion was made from?",
        )
    return canonical
