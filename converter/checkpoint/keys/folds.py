"""Find the parts of weight-normed and spectral-normed weights, and fold them into one weight.

Needs no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlxport.converter.plan.fold_steps import FoldSpectralNorm, FoldWeightNorm
from mlxport.converter.plan.steps import Step
from mlxport.converter.plan.tensor import TensorSpec

# torch.nn.utils.weight_norm, and its parametrisation since PyTorch 2.0
_DIRECTIONS = (
    (re.compile(r"(?P<at>(?:.*\.)?\w+)_v"), "{at}_g"),
    (
        re.compile(r"(?P<at>(?:.*\.)?)parametrizations\.(?P<name>\w+)\.original1"),
        "{at}parametrizations.{name}.original0",
    ),
)

# torch.nn.utils.spectral_norm and its parametrisation: the weight, and its two vectors
_DIVIDED = (
    (re.compile(r"(?P<at>(?:.*\.)?\w+)_orig"), ("{at}_u", "{at}_v")),
    (
        re.compile(r"(?P<at>(?:.*\.)?)parametrizations\.(?P<name>\w+)\.original"),
        ("{at}parametrizations.{name}.0._u", "{at}parametrizations.{name}.0._v"),
    ),
)
_UNKNOWN = "a parametrisation makes the weight of it, and the checkpoint does not say which"
_EITHER = "spectral norm may have taken either axis of it as rows; its two vectors do not tell"


@dataclass(frozen=True)
class Source:
    """The sources of a tensor of a plain module.

    Attributes:
        keys: of the checkpoint.
        steps: what makes one tensor of them; none for a tensor that is there.
        spec: its shape and dtype.
        open: why the weight is not known; empty where it is.
        parts: the names of all that the tensor is split into, in order; empty where it is whole.
    """

    keys: tuple[str, ...]
    steps: tuple[Step, ...]
    spec: TensorSpec
    open: str = ""
    parts: tuple[str, ...] = ()


def plain_sources(specs: Mapping[str, TensorSpec]) -> dict[str, Source]:
    """Return name -> source of each tensor, as the plain modules would name them.

    Pairs of weight norm become the one weight they stand for. The axis of the norm is the one along
    which the magnitude has a size; where it has none, every axis of size 1 gives the same. A weight
    with the two vectors of spectral norm becomes the one it stands for where their lengths tell
    which axis are the rows.
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
        for pattern, vectors in _DIVIDED:
            if match := pattern.fullmatch(key):
                _divide(found, specs, match, tuple(v.format(**match.groupdict()) for v in vectors))
    return found


def _divide(
    found: dict[str, Source],
    specs: Mapping[str, TensorSpec],
    match: re.Match[str],
    vectors: tuple[str, ...],
) -> None:
    """Put a weight in the place of its parts, or say why that cannot be."""
    key, spec = match.string, specs[match.string]
    if not all(vector in specs for vector in vectors):
        if "parametrizations." in key:
            found[key] = Source((key,), (), spec, _UNKNOWN)
        return
    lengths = tuple(specs[vector].shape for vector in vectors)
    axes = [
        axis
        for axis, size in enumerate(spec.shape[:2])
        if lengths == ((size,), (math.prod(spec.shape) // max(size, 1),))
    ]
    if len(axes) != 1:
        found[key] = Source((key,), (), spec, _EITHER if axes else _UNKNOWN)
        return
    for part in (key, *vectors):
        found.pop(part, None)
    name = match["at"] + match.groupdict().get("name", "")
    found[name] = Source((key, *vectors), (FoldSpectralNorm(axes[0]),), spec)


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
