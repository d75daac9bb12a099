"""Handlers of views: the same elements in another shape.

A view of a value stored in another order than PyTorch's needs a transpose only where it merges or
splits axes that are not adjacent as stored.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlxport.converter.graph.ir.code import call, to_ast
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.graph.ir.sizes import Size, length_of, ratio_of
from mlxport.converter.graph.ir.value import (
    Expanded,
    Flattened,
    Order,
    Reshaped,
    Value,
    inherit,
    logical_order,
)
from mlxport.converter.graph.ops.axes import expand_dims, insert_axis
from mlxport.converter.graph.ops.registry import op
from mlxport.converter.graph.ops.repetition import note_repeated

Shape = Sequence[Any]  # of int and of Size
Group = tuple[list[int], list[int]]


@op("aten.view.default", "aten._unsafe_view.default")
def view(cx: Context, x: Value, size: Any) -> Value:
    """The elements, read in PyTorch's order, in another shape."""
    return reshaped(cx, x, cx.shape)


def by_vectors(cx: Context, handler: Handler, *args: Any, **settings: Any) -> Value:
    """Lower an op on 0-d arrays as PyTorch defines it there: on arrays of one element.

    Args:
        cx: the lowering context.
        handler: that of the op, which gives one result.
        *args: its arguments.
        **settings: the same.
    """
    given = [reshaped(cx, x, (1,)) if isinstance(x, Value) and x.ndim == 0 else x for x in args]
    shape = cx.shape or (1,)
    result: Any = handler(cx.giving(((shape, cx.dtype),)), *given, **settings)
    return result if cx.shape else reshaped(cx, result, ())


def reshaped(cx: Context, x: Value, shape: Shape) -> Value:
    """Return the elements in another logical shape, transposed first only where it must be."""
    order = order_after_view(x, shape)
    before = x
    if order is None:
        x = cx.logical(x)
        order = order_after_view(x, shape) or logical_order(len(shape))
    result = inherit(_stored_as(cx, x, shape, order), x, _sources_of_axes(x.shape, shape))
    if before is not x:
        _note_flattened(result, before)
    note_repeated(result, before)
    return result


def _note_flattened(flat: Value, x: Value) -> None:
    """Note what was flattened, where only the flattened axes had to be moved.

    Args:
        flat: the array flattened in PyTorch's order: ``(*B, n)`` of ``(*B, n1, n2, ...)``.
        x: the array, in another order.
    """
    kept = flat.ndim - 1
    is_static = all(isinstance(size, int) for size in x.shape[kept:])
    stays = x.shape[:kept] == flat.shape[:kept] and x.order[:kept] == logical_order(kept)
    if kept > 0 and is_static and stays:
        flat.variable.flattened = Flattened(flat, x)


def _stored_as(cx: Context, x: Value, shape: Shape, order: Order) -> Value:
    """Emit the array in another stored shape; of views in a row, the last one only."""
    base = _unviewed(x)
    stored = tuple(shape[axis] for axis in order)
    before = base.stored_shape
    if stored == before:
        return replace(base, shape=tuple(shape), order=order)
    front, back = matching_ends(before, stored)
    if front + back == len(before) and set(stored[front : len(stored) - back]) == {1}:
        positions = range(front, len(stored) - back)
        return expand_dims(cx, base, positions, shape, order)
    result = cx.compute(reshape_source(base, stored), shape, x.dtype, order)
    result.variable.producer = Reshaped(base)
    return result


def _unviewed(x: Value) -> Value:
    """Return the array that a value is a view of, itself if of none."""
    while isinstance(x.producer, Expanded | Reshaped):
        x = x.producer.base
    return x


def _sources_of_axes(source: Shape, target: Shape) -> tuple[Order, ...]:
    """Return for each axis of a view the source axes it is made of."""
    made_of: dict[int, tuple[int, ...]] = {}
    if 0 not in source:
        for sources, targets in view_groups(source, target):
            made_of.update(dict.fromkeys(targets, tuple(sources)))
    return tuple(made_of.get(axis, ()) for axis in range(len(target)))


def order_after_view(x: Value, target: Shape) -> Order | None:
    """Return the order in which a view's axes are stored if the array stays as it is.

    Args:
        x: the value.
        target: the view's logical shape.

    Returns:
        The order, or None where the view needs the array transposed.
    """
    if 0 in x.shape:
        return logical_order(len(target)) if x.is_logical else None
    groups = view_groups(x.shape, target)
    order = _order_of_groups(x, groups)
    if order is None:  # axes of length one may stand in the way
        order = _order_of_groups(x, [g for g in groups if not _is_unit(x, g)])
    return None if order is None else _with_units(order, len(target))


def _is_unit(x: Value, group: Group) -> bool:
    """Whether a group is one axis of length one that stays; not the first, which may be larger."""
    sources, targets = group
    return len(sources) == len(targets) == 1 and sources[0] > 0 and x.shape[sources[0]] == 1


def _order_of_groups(x: Value, groups: Sequence[Group]) -> Order | None:
    """Return the order of what groups of axes become; None where they are not adjacent."""
    kept = {axis for sources, _ in groups for axis in sources}
    physical = [axis for axis in x.order if axis in kept]
    starting = {sources[0]: (sources, targets) for sources, targets in groups if sources}
    order = [axis for sources, targets in groups if not sources for axis in targets]
    position = 0
    while position < len(physical):
        sources, targets = starting.get(physical[position], ([], []))
        if not sources or physical[position : position + len(sources)] != sources:
            return None
        order += targets
        position += len(sources)
    return tuple(order)


def _with_units(order: Order, ndim: int) -> Order:
    """Return the order with the missing axes, all of length one, put in."""
    if order == (0, 1) and ndim > 3:
        # (N, C) to (N, C, 1, 1): what it will be combined with is mostly channels-last.
        return (0, *range(2, ndim), 1)
    for axis in range(ndim):
        if axis not in order:
            order = insert_axis(order, axis)
    return order


def view_groups(source: Shape, target: Shape) -> list[Group]:
    """Return which source axes become which target axes, in sequence, in the smallest groups.

    Axes of length one are in no group unless they are matched from either end of the shapes, or
    are axis 0: a batch of one now may be larger another time.
    """
    front, back = matching_ends(source, target)
    groups: list[Group] = [([i], [i]) for i in range(front)]
    sources = [i for i in range(front, len(source) - back) if i == 0 or source[i] != 1]
    targets = [i for i in range(front, len(target) - back) if i == 0 or target[i] != 1]
    while sources or targets:
        groups.append(_next_group(source, sources, target, targets))
    groups += [([len(source) - i], [len(target) - i]) for i in range(back, 0, -1)]
    return groups


def _next_group(source: Shape, sources: list[int], target: Shape, targets: list[int]) -> Group:
    """Take axes off both lists, in sequence, until their products agree.

    Where sizes are dynamic and it is unknown which product lacks an axis, all axes are one group:
    the view then keeps only PyTorch's order of the elements, which is always right.
    """
    group: Group = ([], [])
    left = right = 1
    if sources:
        left = _take(source, sources, group[0])
    if targets:
        right = _take(target, targets, group[1])
    while left != right and (sources or targets):
        lacking = _lacking(left, right)
        if lacking is None or not (sources if lacking == "left" else targets):
            group[0].extend(sources)
            group[1].extend(targets)
            sources.clear()
            targets.clear()
        elif lacking == "left":
            left *= _take(source, sources, group[0])
        else:
            right *= _take(target, targets, group[1])
    return group


def _lacking(left: Any, right: Any) -> str | None:
    """Say which of two products has to grow to become the other; None where that is unknown."""
    if isinstance(left, int) and isinstance(right, int):
        return "left" if left < right else "right"
    ratio = ratio_of(right, left)
    if ratio.is_number:
        return "left" if ratio > 1 else "right"
    above, below = ratio.as_numer_denom()
    if below == 1:
        return "left"
    return "right" if above == 1 else None


def _take(shape: Shape, waiting: list[int], taken: list[int]) -> Any:
    taken.append(waiting.pop(0))
    size: int = shape[taken[-1]]
    return size


def matching_ends(before: Shape, after: Shape) -> tuple[int, int]:
    """Return how many sizes two shapes share from the front, and then from the back."""
    shorter = min(len(before), len(after))
    front = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    rest = shorter - front
    back = next((i for i in range(rest) if before[~i] != after[~i]), rest)
    return front, back


def reshape_source(x: Value, stored: Shape) -> ast.expr:
    """Return the expression that reshapes an array as stored: ``squeeze``, ``flatten`` or the like.

    Sizes that stay are left out where MLX allows it, most of all the batch.
    """
    before = x.stored_shape
    front, back = matching_ends(before, stored)
    old, new = before[front : len(before) - back], tuple(stored[front : len(stored) - back])
    if not new and set(old) == {1}:
        return call("mx.squeeze", x, _axes(front, len(old)))
    if not old and set(new) == {1}:
        return call("mx.expand_dims", x, _axes(front, len(new)))
    if 0 in stored:  # PyTorch views nothing in any shape of nothing
        return method(x, "reshape", *stored)
    if len(new) == 1 and len(old) > 1:
        last = front + len(old) - 1
        ends = (front, last) if last < x.ndim - 1 else (front,) if front else ()
        return method(x, "flatten", *ends)
    if len(old) == 1 and len(new) > 1:
        return call("mx.unflatten", x, front, _inferred(new) if is_dynamic(new) else new)
    if not stored:
        return method(x, "reshape", ())
    if is_dynamic(stored):
        return method(x, "reshape", *_inferred(stored))
    return method(x, "reshape", -1, *stored[1:])


def is_dynamic(sizes: Shape) -> bool:
    """Whether some size is known only at run time."""
    return any(isinstance(size, Size) for size in sizes)


def _inferred(sizes: Shape) -> tuple[Any, ...]:
    """Return sizes with the dynamic one that is longest in source left to MLX: ``-1``."""
    dynamic = [i for i, size in enumerate(sizes) if isinstance(size, Size)]
    gap = max(dynamic, key=lambda i: (length_of(sizes[i]), -i))
    return (*sizes[:gap], -1, *sizes[gap + 1 :])


def method(x: Value, name: str, *args: Any) -> ast.expr:
    """Return the call of a method of an array."""
    return ast.Call(ast.Attribute(x.to_ast(), name), [to_ast(arg) for arg in args], [])


def _axes(first: int, count: int) -> int | tuple[int, ...]:
    return first if count == 1 else tuple(range(first, first + count))
