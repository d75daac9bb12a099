"""A cache of keys and values in the IR: one value for each layer, which stands for an object."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mlxport.converter.graph.ir.value import Value

CACHE = "cache"  # what the argument is called, as mlx-lm calls it
LENGTH_AXIS = 2  # of (batch, heads, length, head size)


class LayerTensor(torch.Tensor):
    """The keys and values of a layer as one tensor, where a captured program is run in PyTorch."""


def join_layer(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return what stands for a layer of a cache, made of what it holds.

    Args:
        keys: ``(batch, heads, length, head size)``.
        values: the same, of a head size of its own.
    """
    joined: torch.Tensor = torch.cat([keys, values], -1).as_subclass(LayerTensor)
    return joined


def update_layer(
    layer: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the keys and values of a layer with those of a call behind them.

    Args:
        layer: what `join_layer` gave.
        keys: ``(batch, heads, length, head size)``.
        values: the same, of a head size of its own.
    """
    held = layer.as_subclass(torch.Tensor)
    past = held.split([keys.shape[-1], values.shape[-1]], -1)
    return torch.cat([past[0], keys], LENGTH_AXIS), torch.cat([past[1], values], LENGTH_AXIS)


@dataclass(frozen=True)
class CachedArgument:
    """The argument of a model that is a cache.

    Attributes:
        name: of the argument of ``forward``.
        layers: how many layers it has.
        places: of the leaves of the result that are its keys and values after a call: the keys of
            the first layer, its values, the keys of the second …
        wholes: shape and dtype of each of these.
    """

    name: str
    layers: int
    places: tuple[int, ...]
    wholes: tuple[tuple[tuple[Any, ...], torch.dtype], ...]


@dataclass(eq=False)
class CacheUse:
    """What was done with one layer of a cache so far.

    Attributes:
        number: of the layer.
        updated: whether the keys and values of this call are in it.
    """

    number: int
    updated: bool = False

    @property
    def label(self) -> str:
        """What it is called among what a statement reads and writes."""
        return f"{CACHE}[{self.number}]"


@dataclass(eq=False)
class CacheValue(Value):
    """A layer of a cache: an object of the emitted model, passed on and updated as it is.

    Attributes:
        use: what was done with it; all values that are this layer share it.
        readable: whether the body it is an input of may read its offset at its beginning: nothing
            was added to it before.
    """

    use: CacheUse = field(default_factory=lambda: CacheUse(0))
    readable: bool = True


def caches_among(values: Sequence[Value]) -> list[CacheValue]:
    """Return the layers of a cache among some values, in their order in the cache."""
    found = [value for value in values if isinstance(value, CacheValue)]
    return sorted(found, key=lambda value: value.use.number)


def listed(caches: Sequence[CacheValue]) -> ast.expr:
    """Return the expression of the list of some layers: the list itself where they are all of it.

    They are, where the expressions are its elements in order; a body is given a list as a whole.
    """
    codes = [cache.to_ast() for cache in caches]
    first = codes[0]
    if isinstance(first, ast.Subscript):
        expected = [ast.Subscript(first.value, ast.Constant(n)) for n in range(len(codes))]
        if [*map(_key, codes)] == [*map(_key, expected)]:
            return first.value
    return ast.List(codes)


def _key(code: ast.expr) -> Any:
    if isinstance(code, ast.Subscript) and isinstance(code.slice, ast.Constant):
        return id(getattr(code.value, "key", code.value)), code.slice.value
    return id(code)
