"""Adaptive average and max pooling as PyTorch computes them, channels last; MLX has neither.

Output element ``i`` of ``n`` covers ``[floor(i·L/n), ceil((i+1)·L/n))`` of an axis of length ``L``.
The axes are pooled one after another. The functions take ``output_size`` as a tuple: its length is
the number of spatial axes of ``(N, *S, C)`` or ``(*S, C)``; None keeps the size of an axis.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.norm.statistics import mean_keepdims, upcast
from mlxport.layers.pooling.indexed import flat_indices
from mlxport.layers.windows.windows import (
    first_spatial_axis,
    slice_axis,
    spatial_rank,
    take_on_axis,
)


class Segments(NamedTuple):
    """The segments of one axis: segment ``i`` is ``[starts[i], stops[i])``."""

    axis: int
    size: int
    starts: tuple[int, ...]
    stops: tuple[int, ...]

    @property
    def keep_the_axis(self) -> bool:
        """Whether there is one segment per element."""
        return self.starts == tuple(range(self.size))

    def lengths(self) -> list[int]:
        """Return the number of elements of each segment."""
        return [stop - start for start, stop in zip(self.starts, self.stops, strict=True)]


def adaptive_avg_pool(x: mx.array, output_size: Sequence[int | None]) -> mx.array:
    """Return the mean of every segment; matches ``aten::adaptive_avg_pool1d``, ``2d`` and ``3d``.

    float16 and bfloat16 are summed in float32.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``, floating.
        output_size: one number, or None, per spatial axis.

    Returns:
        ``(N, *output_size, C)`` or ``(*output_size, C)`` in the dtype of ``x``.

    Raises:
        ValueError: ``output_size`` is no tuple or negative, ``x`` has another number of axes, an
            empty spatial axis or no floating dtype.
    """
    segments = _segments("adaptive_avg_pool", x, output_size)
    pooled = upcast(x)
    for axis in reversed(segments):
        pooled = _segment_mean(pooled, axis)
    return pooled.astype(x.dtype)


def adaptive_max_pool(x: mx.array, output_size: Sequence[int | None]) -> mx.array:
    """Return the maximum of every segment; as ``torch.nn.functional.adaptive_max_pool1d`` to 3d.

    NaN in a segment gives NaN. Equal maxima share the gradient; in PyTorch the first takes it.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``, floating.
        output_size: one number, or None, per spatial axis.

    Returns:
        ``(N, *output_size, C)`` or ``(*output_size, C)`` in the dtype of ``x``.

    Raises:
        ValueError: as :func:`adaptive_avg_pool`.
    """
    for segments in reversed(_segments("adaptive_max_pool", x, output_size)):
        if not segments.keep_the_axis:
            x = _gathered(x, segments).max(axis=segments.axis + 1)
    return x


def adaptive_max_pool_with_indices(
    x: mx.array, output_size: Sequence[int | None]
) -> tuple[mx.array, mx.array]:
    """Return the maximum of every segment and its index; as ``aten::adaptive_max_pool1d`` to 3d.

    Of equal maxima the first is returned, of several NaN the last, as in PyTorch.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``, floating.
        output_size: one number, or None, per spatial axis.

    Returns:
        The maxima in the dtype of ``x`` and their indices in int64, both ``(N, *output_size, C)``
        or ``(*output_size, C)``; an index counts the elements of one channel of one sample.

    Raises:
        ValueError: as :func:`adaptive_avg_pool`.
    """
    segments = _segments("adaptive_max_pool_with_indices", x, output_size)
    indices = mx.broadcast_to(flat_indices(x, len(segments)), x.shape)
    for axis in reversed(segments):
        within = axis.axis + 1
        values, candidates = _gathered(x, axis), _gathered(indices, axis)
        chosen = mx.expand_dims(_first_maximum(values, within), within)
        x = mx.take_along_axis(values, chosen, axis=within).squeeze(within)
        indices = mx.take_along_axis(candidates, chosen, axis=within).squeeze(within)
    return x, indices


def _segments(layer: str, x: mx.array, output_size: Sequence[int | None]) -> list[Segments]:
    rank = spatial_rank(layer, "output_size", output_size)
    first = first_spatial_axis(layer, x, rank)
    sizes = x.shape[first:-1]
    wanted = [
        size if count is None else count for count, size in zip(output_size, sizes, strict=True)
    ]
    if min(wanted) < 0:
        raise ValueError(f"[{layer}] 'output_size' must not be negative but got {output_size}.")
    if min(sizes) < 1:
        raise ValueError(f"[{layer}] input must have no empty spatial axis but got {x.shape}.")
    if not mx.issubdtype(x.dtype, mx.floating):
        raise ValueError(f"[{layer}] input must be of a floating dtype but got {x.dtype}.")
    return [
        Segments(
            first + i,
            size,
            tuple(j * size // count for j in range(count)),
            tuple(-(-(j + 1) * size // count) for j in range(count)),
        )
        for i, (size, count) in enumerate(zip(sizes, wanted, strict=True))
    ]


def _gathered(x: mx.array, segments: Segments) -> mx.array:
    """Split the axis into ``(count, longest)``; shorter segments repeat their last element."""
    count, lengths = len(segments.starts), segments.lengths()
    if count == 0:
        return mx.expand_dims(slice_axis(x, segments.axis, 0, 0), segments.axis + 1)
    if sum(lengths) == segments.size and len(set(lengths)) == 1:
        return mx.unflatten(x, segments.axis, (count, lengths[0]))
    starts, stops = (mx.array(ends)[:, None] for ends in (segments.starts, segments.stops))
    indices = mx.minimum(starts + mx.arange(max(lengths)), stops - 1)
    return take_on_axis(x, segments.axis, indices)


def _segment_mean(x: mx.array, segments: Segments) -> mx.array:
    if segments.keep_the_axis:
        return x
    lengths = segments.lengths()
    values, within = _gathered(x, segments), segments.axis + 1
    if len(set(lengths)) <= 1:
        return mean_keepdims(values, (within,)).squeeze(within)
    trailing = [1] * (x.ndim - 1 - segments.axis)
    counts = mx.array(lengths).reshape(-1, *trailing)
    inside = mx.arange(max(lengths)).reshape(-1, *trailing) < mx.expand_dims(counts, 1)
    total = mean_keepdims(mx.where(inside, values, 0), (within,)).squeeze(within) * max(lengths)
    return total / counts.astype(x.dtype)


def _first_maximum(values: mx.array, axis: int) -> mx.array:
    """Return the index of the maximum along an axis: the first of equal ones, the last NaN."""
    values = mx.stop_gradient(values)
    top = values.max(axis=axis, keepdims=True)
    length = values.shape[axis]
    indices = mx.arange(length).reshape(-1, *[1] * (values.ndim - 1 - axis))
    first = mx.where(values == top, indices, length).min(axis=axis)
    last = mx.where(mx.isnan(values), indices, -1).max(axis=axis)
    return mx.where(last >= 0, last, first)


class _AdaptivePool(nn.Module):
    rank: ClassVar[int]

    def __init__(self, output_size: int | Sequence[int | None] | None) -> None:
        super().__init__()
        sizes: tuple[int | None, ...]
        if output_size is None or isinstance(output_size, int):
            sizes = (output_size,) * self.rank
        else:
            sizes = tuple(output_size)
        if len(sizes) != self.rank:
            raise ValueError(
                f"[{type(self).__name__}] 'output_size' must be one number or {self.rank} but got "
                f"{output_size}."
            )
        self.output_size = sizes

    def _extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_AdaptivePool):
    def __call__(self, x: mx.array) -> mx.array:
        return adaptive_avg_pool(x, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """:func:`adaptive_avg_pool` of sequences; matches ``torch.nn.AdaptiveAvgPool1d``.

    Shape:
        - Input: ``(N, L, C)`` or ``(L, C)``
        - Output: ``(N, *output_size, C)`` or ``(*output_size, C)``
    """

    rank = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """:func:`adaptive_avg_pool` of images; matches ``torch.nn.AdaptiveAvgPool2d``.

    Shape:
        - Input: ``(N, H, W, C)`` or ``(H, W, C)``
        - Output: ``(N, *output_size, C)`` or ``(*output_size, C)``
    """

    rank = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """:func:`adaptive_avg_pool` of volumes; matches ``torch.nn.AdaptiveAvgPool3d``.

    Shape:
        - Input: ``(N, D, H, W, C)`` or ``(D, H, W, C)``
        - Output: ``(N, *output_size, C)`` or ``(*output_size, C)``
    """

    rank = 3


class _AdaptiveMaxPool(_AdaptivePool):
    def __init__(
        self, output_size: int | Sequence[int | None] | None, return_indices: bool = False
    ) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def __call__(self, x: mx.array) -> Any:
        pool: Any = adaptive_max_pool_with_indices if self.return_indices else adaptive_max_pool
        return pool(x, self.output_size)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """:func:`adaptive_max_pool` of sequences; matches ``torch.nn.AdaptiveMaxPool1d``.

    Shape:
        - Input: ``(N, L, C)`` or ``(L, C)``
        - Output: ``(N, *output_size, C)`` or ``(*output_size, C)``

    With ``return_indices`` the result is a pair: the maxima and their indices, int64, in the order
    of the elements of one channel.
    """

    rank = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """:func:`adaptive_max_pool` of images; matches ``torch.nn.AdaptiveMaxPool2d``.

    Shape:
        - Input: ``(N, H, W, C)`` or ``(H, W, C)``
        - Output: ``(N, *output_size, C)`` or ``(*output_size, C)``

    With ``return_indices`` the result is a pair: the maxima and their indices, int64, in the order
    of the elements of one channel.
    """

    rank = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """:func:`adaptive_max_pool` of volumes; matches ``torch.nn.AdaptiveMaxPool3d``.

    Shape:
        - Input: ``(N, D, H, W, C)`` or ``(D, H, W, C)``
        - Output: ``(N, *output_size, C)`` or ``(*output_size, C)``

    With ``return_indices`` the result is a pair: the maxima and their indices, int64, in the order
    of the elements of one channel.
    """

    rank = 3
