"""Lower a cache: its layers are objects, passed to the modules that update them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.ir.caches import (
    CACHE,
    CachedArgument,
    CacheValue,
    caches_among,
    listed,
)
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.inputs import Formal
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Use, Value, Variable, logical_order
from mlxport.layers.attention import cache as cache_layers

_CLASS = cache_layers.KVCache.__name__
_FILE = "attention.cache"


def import_cache(lowered: Lowered) -> None:
    """Let ``model.py`` import what a model with a cache needs."""
    for function in (cache_layers.KVCache, cache_layers.check_cache):
        lowered.scope.imports[function.__name__] = _FILE


def layer_of(keys: CacheValue, shape: Sequence[Any]) -> CacheValue:
    """Return the layer of a cache that some keys are in.

    Args:
        keys: an input of the model.
        shape: of what stands for the layer in the captured program.
    """
    return replace(keys, shape=tuple(shape))


def lower_update(cx: Context, layer: CacheValue, keys: Value, values: Value) -> tuple[Value, ...]:
    """Write the statement that adds to a layer; return the keys and values of all calls.

    Args:
        cx: the body, at the node.
        layer: the layer.
        keys: of this call.
        values: of this call.
    """
    added = [cx.logical(value) for value in (keys, values)]
    targets = tuple(
        Value(shape, dtype, logical_order(len(shape)), name, flows=False)
        for (shape, dtype), name in zip(cx.results, ("keys", "values"), strict=True)
    )
    code = ast.Call(
        ast.Attribute(layer.to_ast(), "update_and_fetch"), [value.to_ast() for value in added], []
    )
    known = frozenset({layer.use.label})
    cx.statements.append(Statement(targets, code, reads=known, writes=known))
    layer.use.updated = True
    return targets


def given_back(cached: CachedArgument, outputs: Sequence[Any]) -> list[Any]:
    """Return what a model gives, with what its cache holds after the call in its place."""
    leaving = list(outputs)
    for place, (shape, dtype) in zip(cached.places, cached.wholes, strict=True):
        leaving[place] = CacheValue(tuple(shape), dtype, logical_order(len(shape)), CACHE)
    return leaving


def formals_with_caches(formals: Sequence[Value]) -> list[Formal] | None:
    """Return the parameters of a class that is given layers of a cache; None where it is not.

    Several layers are one list, and are read as its elements.

    Args:
        formals: what stands for them in its body; layers among them are changed.
    """
    layers = caches_among(formals)
    if not layers:
        return None
    others = [Formal.of(v) for v in formals if not isinstance(v, CacheValue)]
    if len(layers) == 1:
        return [*others, Formal(layers[0].variable, CACHE, _CLASS)]
    variable = Variable()
    for number, layer in enumerate(layers):
        layer.code = ast.Subscript(Use(variable), ast.Constant(number))
    return [*others, Formal(variable, CACHE, "list")]


def arguments_with_caches(values: Sequence[Value]) -> list[Any]:
    """Return the arguments for `formals_with_caches`: the layers of a cache behind all others."""
    layers = caches_among(values)
    others: list[Any] = [value for value in values if not isinstance(value, CacheValue)]
    if len(layers) > 1:
        return [*others, listed(layers)]
    return [*others, *layers]


def formal_layer(value: CacheValue) -> CacheValue:
    """Return what stands for a layer in the body of a class that is given it."""
    readable = not value.use.updated
    return CacheValue(
        value.shape, value.dtype, value.order, CACHE, use=value.use, readable=readable
    )
