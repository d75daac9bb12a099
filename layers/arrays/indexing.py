"""Copies of arrays with some elements replaced: slices, indices, scatter and diagonals."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlxport.layers.device.scatter_stream import scatter_stream


def slice_scatter(
    x: mx.array, source: mx.array, axis: int, start: int, stop: int, step: int
) -> mx.array:
    """Return ``x`` with a strided slice along an axis replaced, as ``torch.slice_scatter``.

    Args:
        x: any shape.
        source: the shape of the slice.
        axis: the axis.
        start: first index, not negative.
        stop: the index after the last.
        step: the distance of indices, positive.
    """
    result = mx.array(x)
    result[(slice(None),) * (axis % x.ndim) + (slice(start, stop, step),)] = source
    return result


def index_put(x: mx.array, indices: Sequence[mx.array | None], values: mx.array) -> mx.array:
    """Return ``x`` with the elements at some indices replaced, as ``torch.index_put``.

    Args:
        x: any shape.
        indices: integer arrays, one per leading axis, broadcast together; None is a whole axis.
        values: broadcast to the shape of what the indices select.
    """
    result = mx.array(x)
    with scatter_stream(x.dtype):
        result[_places(indices)] = values
    return result


def index_add(
    x: mx.array, indices: Sequence[mx.array | None], values: mx.array | float
) -> mx.array:
    """Return ``x`` with values added at some indices: ``x.at[indices].add(values)`` of any dtype.

    Args:
        x: any shape.
        indices: integer arrays, one per leading axis, broadcast together; None is a whole axis.
            Values with the same indices are summed.
        values: a number, or an array that is broadcast to the shape of what the indices select.
    """
    with scatter_stream(x.dtype, sums=True):
        return x.at[_places(indices)].add(values)


def _places(indices: Sequence[mx.array | None]) -> tuple[mx.array | slice, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


def scatter(x: mx.array, indices: mx.array, source: mx.array | float, axis: int) -> mx.array:
    """Return ``x`` with elements along an axis replaced, as ``torch.scatter``.

    Args:
        x: any shape.
        indices: integers, with the number of axes of ``x``, and no longer except along ``axis``.
        source: a number, or an array at least as long as ``indices`` along every axis.
        axis: the axis that is indexed.
    """
    part, source = _overlap(x, indices, source, axis)
    with scatter_stream(x.dtype):
        written = mx.put_along_axis(part, indices, mx.array(source, dtype=x.dtype), axis)
    if written.shape == x.shape:
        return written
    return mx.slice_update(x, written, mx.zeros(x.ndim, dtype=mx.int32), axes=tuple(range(x.ndim)))


def scatter_add(x: mx.array, indices: mx.array, source: mx.array, axis: int) -> mx.array:
    """Return ``x`` with elements added along an axis, as ``torch.scatter_add``.

    Shapes are those of :func:`scatter`; values with the same index are summed.
    """
    added = _overlap(x, indices, source, axis)[1]
    index_arrays = [
        mx.arange(size).reshape([-1 if i == a else 1 for i in range(x.ndim)])
        for a, size in enumerate(indices.shape)
    ]
    index_arrays[axis] = indices
    return index_add(x, index_arrays, added)


def diagonal_scatter(
    x: mx.array, source: mx.array, offset: int = 0, axis1: int = 0, axis2: int = 1
) -> mx.array:
    """Return ``x`` with a diagonal of two axes replaced, as ``torch.diagonal_scatter``.

    Args:
        x: any shape of at least two axes.
        source: the shape of that diagonal, which is its last axis.
        offset: how far above the main diagonal, below where negative.
        axis1: the axis of the rows.
        axis2: the axis of the columns.
    """
    count = source.shape[-1]
    if source.size == 0:
        return x
    order = [axis1, axis2, *(a for a in range(x.ndim) if a not in (axis1, axis2))]
    moved = mx.array(x.transpose(order))
    diagonal = mx.arange(count)
    places = diagonal + max(-offset, 0), diagonal + max(offset, 0)
    with scatter_stream(x.dtype):
        moved[places] = mx.moveaxis(source, -1, 0)
    return moved.transpose([order.index(a) for a in range(x.ndim)])


def _overlap(
    x: mx.array, indices: mx.array, source: mx.array | float, axis: int
) -> tuple[mx.array, mx.array | float]:
    """Return the parts of ``x`` and ``source`` that have the extent of ``indices``."""
    axis %= x.ndim
    reach = tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))
    if isinstance(source, mx.array) and source.ndim:
        source = source[tuple(slice(n) for n in indices.shape)]
    return x[reach], source
