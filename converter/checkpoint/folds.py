"""Find weights that a checkpoint holds in parts: weight norm's magnitude and direction.

Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlxport.converter.tensor import TensorSpec
from mlxport.converter.transforms import FoldWeightNorm, Step

# torch.nn.utils.weight_norm, and its parametrisation since PyTorch 2.0
_DIRECTIONS = (
    (re.compile(r"(?P<at>(?:.*\.)?\w+)_v"), "{at}_g"),
    (
        re.compile(r"(?P<at>(?:.*\.)?)parametrizations\.(?P<name>\w+)\.original1"),
        "{at}parametrizations.{name}.original0",
    ),
)


@dataclass(frozen=True)
class Source:
    """What a tensor of a plain module is made from.

    Attributes:
        keys: of the checkpoint.
        steps: what makes one tensor of them; none for a tensor that is there.
        spec: its shape and dtype.
    """

    keys: tuple[str, ...]
    steps: tuple[Step, ...]
    spec: TensorSpec


def plain_sources(specs: Mapping[str, TensorSpec]) -> dict[str, Source]:
    """Return name -> source of each tensor, as the plain modules would name them.

    Pairs of weight norm become the one weight they stand for. The axis of the norm is the one along
    which the magnitude has a size; where it has none, every axis of size 1 gives the same.
    """
    found = {key: Source((key,), (), spec) for key, spec in specs.items()}
    for key, spec in specs.items():
        for pattern, partner in _DIRECTIONS:
            match = pattern.fullmatch(key)
            if match is None:
                continue
            other = partner.format(**match.groupdict())
            dim = _dim(specs[other].shape, spec.shape) if other in specs else None
            if dim is None:
                continue
            parts = match.groupdict()
            name = parts["at"] + parts.get("name", "")
            for part in (key, other):
                found.pop(part, None)
            found[name] = Source((other, key), (FoldWeightNorm(dim),), spec)
    return found


def _dim(magnitude: tuple[int, ...], direction: tuple[int, ...]) -> int | None:
    """Return the axis a norm leaves, -1 for none, or None where the shapes are no such pair."""
    if len(direction) < 2:  # PyTorch normalises none
        return None
    if magnitude == ():
        return -1
    for axis, size in enumerate(direction):
        if magnitude == tuple(size if i == axis else 1 for i in range(len(direction))):
            return axis
    return None
