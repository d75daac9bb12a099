"""Transposes: two in a row become one, equal ones are emitted once, needless ones not at all."""

from __future__ import annotations

import ast
from dataclasses import replace

from mlxport.converter.graph.ir.code import call
from mlxport.converter.graph.ir.scopes import BodyScope, ModelScope
from mlxport.converter.graph.ir.value import (
    Expanded,
    Order,
    Transposed,
    Value,
    logical_order,
    order_of_provenance,
    permutation,
)


def transposed(model: ModelScope, body: BodyScope, value: Value, order: Order) -> Value:
    """Return a value stored in the given order, transposing only where that is needed.

    Args:
        model: gains the demand, where the order of the value's provenance may be chosen.
        body: gains the statement.
        value: the value.
        order: the axis order.
    """
    if value.order == order:
        return value
    known, axes = value.variable.transposes, permutation(value.order, order)
    if axes not in known:
        known[axes] = _expanded_elsewhere(body, value, order) or _moved(model, body, value, order)
    return replace(known[axes], shape=value.shape, order=order)


def is_available_in(value: Value, order: Order) -> bool:
    """Whether a value exists in an order already: it is in it, or was transposed for another."""
    axes = permutation(value.order, order)
    _, before = _base_of(value)
    there = logical_order(value.ndim) in (axes, tuple(before[axis] for axis in axes))
    return there or axes in value.variable.transposes


def _base_of(value: Value) -> tuple[Value, Order]:
    """Return what a value is the transpose of, and by which axes."""
    producer = value.producer
    return (
        (producer.base, producer.axes)
        if isinstance(producer, Transposed)
        else (value, logical_order(value.ndim))
    )


def _moved(model: ModelScope, body: BodyScope, value: Value, order: Order) -> Value:
    """Emit a transpose; of one that is a transpose itself, both in one or neither."""
    wanted = order_of_provenance(value, order)
    if value.provenance is not None and wanted is not None:
        model.demands.setdefault(value.provenance, []).append(wanted)
    base, before = _base_of(value)
    axes = tuple(before[axis] for axis in permutation(value.order, order))
    if axes == logical_order(value.ndim):
        return replace(base, shape=value.shape, order=order, provenance=None, lineage=None)
    function = ast.Attribute(base.to_ast(), "transpose")
    code = ast.Call(function, [ast.Constant(axis) for axis in axes], [])
    result = body.compute(code, value.shape, value.dtype, order, value.name)
    result.variable.producer = Transposed(base, axes)
    return result


def _expanded_elsewhere(body: BodyScope, value: Value, order: Order) -> Value | None:
    """Emit the array without its new axes of length one again, with them where they are wanted.

    None where others than those would move.
    """
    base, positions = Expanded.base_of(value)
    new = {value.order[position] for position in positions}
    if [a for a in value.order if a not in new] != [a for a in order if a not in new]:
        return None
    places = tuple(order.index(axis) for axis in sorted(new, key=order.index))
    axis = places if len(places) > 1 else -1 if places[0] == value.ndim - 1 else places[0]
    code = call("mx.expand_dims", base, axis)
    result = body.compute(code, value.shape, value.dtype, order, value.name)
    result.variable.producer = Expanded(base, places)
    return result
