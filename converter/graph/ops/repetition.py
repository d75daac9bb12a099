"""Arrays whose slices are repeated along an axis: what a consumer reads that does without that.

Grouped queries in PyTorch are written as keys and values repeated to all heads; MLX's attention
takes them as they are.
"""

from __future__ import annotations

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Repeated, Value
from mlxport.converter.graph.ops.axes import squeezed


def note_repeated(flat: Value, x: Value) -> None:
    """Note a view that repeats, where it joins an axis to the one before that it was broadcast to.

    Args:
        flat: ``(*A, n * count, *B)``, the elements of ``x`` in PyTorch's order.
        x: ``(*A, n, count, *B)``, with its axis of ``count`` broadcast or not.
    """
    known = x.variable.broadcast
    if known is None or not _is_as_noted(x, known.result) or known.base.ndim != x.ndim:
        return
    changed = [a for a in range(x.ndim) if known.base.shape[a] != x.shape[a]]
    if len(changed) != 1 or changed[0] == 0:
        return
    (axis,) = changed
    number, count = x.shape[axis - 1 : axis + 1]
    if not (isinstance(number, int) and isinstance(count, int)):
        return
    if flat.shape == (*x.shape[: axis - 1], number * count, *x.shape[axis + 1 :]):
        flat.variable.repeated = Repeated(flat, known.base, axis - 1, count, new_axis=axis)


def unrepeated(cx: Context, x: Value, axis: int) -> tuple[Value, int]:
    """Return what an array repeats along an axis, and how often each slice stands in it.

    Args:
        cx: the lowering context.
        x: the array.
        axis: the logical axis, counted from the front.

    Returns:
        The array without repetition and the count, or ``x`` itself and 1.
    """
    known = x.variable.repeated
    if known is None or known.axis != axis or not _is_as_noted(x, known.result):
        return x, 1
    if known.new_axis is None:
        return known.base, known.count
    shape = [size for a, size in enumerate(known.base.shape) if a != known.new_axis]
    return squeezed(cx, known.base, [known.new_axis], shape), known.count


def _is_as_noted(x: Value, noted: Value) -> bool:
    """Whether a value of the same variable has the axes, too, that a note was made of."""
    return x.shape == noted.shape and x.order == noted.order
