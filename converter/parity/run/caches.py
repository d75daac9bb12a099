"""Call an MLX model that is given a cache as PyTorch's is called: with the tensors in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxport.converter.parity.run.trace import arrays
from mlxport.converter.plan.record import CacheRecord, Conversion
from mlxport.converter.plan.structure import Signature
from mlxport.layers.attention.cache import KVCache

_ARGUMENT = "cache"


@contextmanager
def caches_as_arrays(model: nn.Module, conversion: Conversion) -> Iterator[None]:
    """Let a model take and give the keys and values of its cache as the signature says.

    ``cache`` is then a list with a pair of arrays for each layer, and what they have become is in
    the result. A model without a cache stays as it is, and so does one that this was done to.

    Args:
        model: the MLX model; its class is put back at the end.
        conversion: the record of it.
    """
    record, signature, cls = conversion.cache, conversion.signature, type(model)
    if record is None or signature is None or issubclass(cls, _TakesArrays):
        yield
        return
    object.__setattr__(model, "__class__", _class_taking_arrays(cls, record, signature))
    try:
        yield
    finally:
        object.__setattr__(model, "__class__", cls)


class _TakesArrays:
    """Marks the classes that are made here."""


def _class_taking_arrays(cls: type[nn.Module], record: CacheRecord, signature: Signature) -> type:
    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        cache = [_filled(*pair) for pair in kwargs.pop(_ARGUMENT)]
        result = cls.__call__(self, *args, **kwargs, **{_ARGUMENT: cache})
        states = (array for layer in cache for array in layer.state)
        given = dict(zip(record.results, states, strict=True))
        others = arrays(result)
        leaves = signature.result.leaves("")
        tensors = [n for n, (_, leaf) in enumerate(leaves) if leaf.kind == "tensor"]
        waiting = iter([given[n] if n in given else next(others) for n in tensors])
        return signature.result.build(lambda: next(waiting))

    body = {"__call__": __call__, "__module__": cls.__module__}
    return type(cls.__name__, (_TakesArrays, cls), body)


def _filled(keys: mx.array, values: mx.array) -> KVCache:
    layer = KVCache()
    layer.state = (keys, values)
    return layer
