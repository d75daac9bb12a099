"""Rows of a table summed, averaged or maximised by bags, without a row for each on the way out."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.embedding.embedding import renormalised
from mlxport.layers.norm.statistics import upcast

BAG_MODES = ("sum", "mean", "max")


def embedding_bag(
    weight: mx.array,
    indices: mx.array,
    offsets: mx.array | None = None,
    mode: str = "mean",
    per_sample_weights: mx.array | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
) -> mx.array:
    """Reduce the rows of every bag; matches ``aten::embedding_bag``.

    Args:
        weight: the table ``(R, D)``, floating.
        indices: bags of one size, ``(B, L)``; or in a row, ``(I,)``. They are not checked.
        offsets: where each bag in a row begins, ``(B,)``, the first at 0.
        mode: ``sum``, ``mean`` or ``max``.
        per_sample_weights: factors of the rows in the shape of ``indices``, with ``sum`` only.
        include_last_offset: whether ``offsets`` also holds the end of the last bag, ``(B + 1,)``.
        padding_idx: the index that counts for nothing.
        max_norm: what the norm of a longer row becomes, as by ``aten::embedding_renorm_``; the
            table stays as it is.
        norm_type: that norm.

    Returns:
        ``(B, D)`` in the dtype of ``weight``; zeros for a bag that holds nothing.

    Raises:
        ValueError: shapes do not fit, there is no such mode, or weights come with another mode.
    """
    _check(indices, offsets, mode, per_sample_weights)
    flat = indices.reshape(-1)
    if offsets is None:
        bags, size = indices.shape
        places = mx.repeat(mx.arange(bags), size)
    else:
        bags = offsets.size - include_last_offset
        starts = mx.zeros(flat.size + 1, dtype=mx.int32).at[offsets].add(1)
        places = mx.cumsum(starts)[:-1] - 1
    # One bag more takes what counts for nothing, or lies behind the last offset.
    if padding_idx is not None:
        places = mx.where(flat == padding_idx, bags, places)
    rows = weight[flat]
    if max_norm is not None:
        rows = renormalised(rows, max_norm, norm_type)
    rows = upcast(rows)
    if per_sample_weights is not None:
        rows = rows * upcast(per_sample_weights).reshape(-1, 1)
    reduced = _largest(rows, places, bags + 1) if mode == "max" else _sum(rows, places, bags + 1)
    if mode == "mean":
        counts = mx.zeros((bags + 1, 1), rows.dtype).at[places].add(1)
        reduced = reduced / mx.maximum(counts, 1)
    return reduced[:bags].astype(weight.dtype)


def _sum(rows: mx.array, places: mx.array, bags: int) -> mx.array:
    return mx.zeros((bags, rows.shape[1]), rows.dtype).at[places].add(rows)


def _largest(rows: mx.array, places: mx.array, bags: int) -> mx.array:
    """The maximum of every bag; of equal ones the first takes the gradient, as in PyTorch."""
    count, dims = rows.shape
    if count == 0:
        return mx.zeros((bags, dims), rows.dtype)
    values = mx.stop_gradient(rows)
    best = mx.full((bags, dims), -math.inf, values.dtype).at[places].maximum(values)
    reaches = (values == best[places]) | mx.isnan(values)
    numbers = mx.where(reaches, mx.arange(count)[:, None], count)
    first = mx.full((bags, dims), count, numbers.dtype).at[places].minimum(numbers)
    found = mx.take_along_axis(rows, mx.minimum(first, count - 1), axis=0)
    return mx.where(first < count, found, 0)


def _check(
    indices: mx.array,
    offsets: mx.array | None,
    mode: str,
    per_sample_weights: mx.array | None,
) -> None:
    if mode not in BAG_MODES:
        raise ValueError(f"[embedding_bag] 'mode' must be one of {BAG_MODES} but got {mode!r}.")
    if (indices.ndim, None if offsets is None else offsets.ndim) not in ((1, 1), (2, None)):
        raise ValueError(
            "[embedding_bag] indices must be (I,) with offsets (B,), or (B, L) without, but got "
            f"{indices.shape} and {None if offsets is None else offsets.shape}."
        )
    if per_sample_weights is None:
        return
    if mode != "sum" or per_sample_weights.shape != indices.shape:
        raise ValueError(
            "[embedding_bag] 'per_sample_weights' go with mode='sum' and have the shape of the "
            f"indices, {indices.shape}, but got {per_sample_weights.shape} with mode={mode!r}."
        )


class EmbeddingBag(nn.Embedding):
    """:func:`embedding_bag` of a learned table; matches ``torch.nn.EmbeddingBag``.

    ``max_norm`` shortens rows as in :class:`mlxport.layers.embedding.embedding.Embedding`.

    Args:
        num_embeddings: the number of rows.
        dims: their size.
        mode: ``sum``, ``mean`` or ``max``.
        include_last_offset: whether offsets also hold the end of the last bag.
        padding_idx: the index that counts for nothing.
        max_norm: what the norm of a longer row becomes.
        norm_type: that norm.
    """

    def __init__(
        self,
        num_embeddings: int,
        dims: int,
        mode: str = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> None:
        super().__init__(num_embeddings, dims)
        self.mode = mode
        self.include_last_offset = include_last_offset
        self.padding_idx = padding_idx
        self.max_norm, self.norm_type = max_norm, norm_type

    def _extra_repr(self) -> str:
        return f"{super()._extra_repr()}, mode={self.mode}, padding_idx={self.padding_idx}"

    def __call__(
        self,
        x: mx.array,
        offsets: mx.array | None = None,
        per_sample_weights: mx.array | None = None,
    ) -> mx.array:
        """Reduce bags: ``(B, L)``, or ``(I,)`` with offsets ``(B,)``, to ``(B, dims)``."""
        return embedding_bag(
            self.weight,
            x,
            offsets,
            self.mode,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
        )
