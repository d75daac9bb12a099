"""Bring the operands of one op to one axis order, and broadcast them as PyTorch does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.transposes import is_available_in
from mlxport.converter.graph.ir.value import Expanded, Order, Value, logical_order
from mlxport.converter.graph.ops.axes import expand_dims, squeezed

# A symbolic size weighs more than a parameter's and less than a volume's.
_SYMBOLIC_SIZE = 64


def align(cx: Context, *operands: Any) -> tuple[list[Any], Order]:
    """Bring the operands of a pointwise op to one stored order.

    PyTorch aligns shapes at the last *logical* axis, MLX at the last *stored* one. An operand of
    lower rank gets its axes in the order of the target, with axes of length one where the target
    stores an axis that it lacks between or behind its own.

    Args:
        cx: where transposes are emitted.
        *operands: values; anything else is returned unchanged.

    Returns:
        The operands, ready to be combined, and the order of the result (of the highest rank).
    """
    values = [v for v in operands if isinstance(v, Value)]
    rank = max((v.ndim for v in values), default=0)
    full = [v for v in values if v.ndim == rank]
    computed = [v for v in full if v.has_fixed_order] or full
    largest = max((_weight(v) for v in computed), default=0)
    order = order_for(cx, [v for v in computed if _weight(v) == largest], rank)
    fitted = [_fit(cx, v, order) if isinstance(v, Value) else v for v in operands]
    unexpanded = (v for v in full if not isinstance(v.producer, Expanded))
    unchanged = next(unexpanded, full[0] if full else None)
    return [
        _without_leading_ones(cx, new) if isinstance(old, Value) and old is not unchanged else new
        for old, new in zip(operands, fitted, strict=True)
    ], order


def common_order(cx: Context, values: Sequence[Value]) -> tuple[list[Value], Order]:
    """Bring values of one rank to one stored order (those that are joined, not broadcast)."""
    order = order_for(cx, [v for v in values if v.has_fixed_order] or values, values[0].ndim)
    return [rearrange(cx, v, order) for v in values], order


def order_for(cx: Context, values: Sequence[Value], rank: int) -> Order:
    """Return the order to combine values in: one that all are available in, or that of most."""
    chosen = choose_order(values, rank)
    orders = (chosen, *(value.order for value in values))
    available = (o for o in orders if all(_is_available(value, o) for value in values))
    return next(available, chosen)


def _is_available(value: Value, order: Order) -> bool:
    """Whether a value is stored in the order already, or a transpose to it was emitted."""
    return _same_layout(value, order) or is_available_in(value, order)


def choose_order(values: Iterable[Value], rank: int) -> Order:
    """Return the order that most elements are stored in, PyTorch's only if all have it.

    A network works in channels-last; what is in PyTorch's order is the exception.
    """
    weights: dict[Order, int] = {}
    for value in values:
        if not value.is_logical:
            weights[value.order] = weights.get(value.order, 0) + _weight(value)
    return max(weights, key=weights.__getitem__, default=logical_order(rank))


def rearrange(cx: Context, value: Value, order: Order) -> Value:
    """Return the value stored in the order; nothing is emitted where only axes of one move."""
    if value.order != order and _same_layout(value, order):
        return replace(value, order=order)
    return cx.arrange(value, order)


def _weight(value: Value) -> int:
    weight = 1
    for size in value.shape:
        weight *= size if isinstance(size, int) else _SYMBOLIC_SIZE
    return weight


def _same_layout(value: Value, order: Order) -> bool:
    """Whether only axes of length one move, the batch left aside: it may be larger later."""
    moved = [a for a, b in zip(value.order, order, strict=True) if a != b]
    return 0 not in moved and all(value.shape[axis] == 1 for axis in moved)


def _without_leading_ones(cx: Context, value: Value) -> Value:
    """Leave out axes just put in front of all others: broadcasting puts them there by itself."""
    _, added = Expanded.base_of(value)
    leading = next((i for i, position in enumerate(added) if i != position), len(added))
    if not leading:
        return value
    dims = value.order[:leading]
    shape = [size for axis, size in enumerate(value.shape) if axis not in dims]
    return squeezed(cx, value, dims, shape)


def _fit(cx: Context, value: Value, order: Order) -> Value:
    """Arrange an operand so that MLX broadcasts it to the order as PyTorch does."""
    missing = len(order) - value.ndim
    if missing and all(isinstance(size, int) and size == 1 for size in value.shape):
        return value
    present = tuple(axis - missing for axis in order if axis >= missing)
    value = rearrange(cx, value, present)
    first = next((p for p, axis in enumerate(order) if axis >= missing), len(order))
    inner = [p for p in range(first, len(order)) if order[p] < missing]
    if not inner:
        return value
    kept = order[first:]
    logical = sorted(kept)
    shape = [1 if axis < missing else value.shape[axis - missing] for axis in logical]
    after = tuple(logical.index(axis) for axis in kept)
    return expand_dims(cx, value, [p - first for p in inner], shape, after)
