"""Embedding bags: the sum, mean or maximum of table rows, for each bag of indices."""

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
    """Return the reduced rows of every bag; matches ``aten::embedding_bag``.

    Args:
        weight: the table ``(R, D)``, floating.
        indices: bags of one size, ``(B, L)``; or concatenated bags, ``(I,)``. They are not checked.
        offsets: the start of each concatenated bag, ``(B,)``, the first at 0.
        mode: ``sum``, ``mean`` or ``max``.
        per_sample_weights: factors of the rows in the shape of ``indices``, with ``sum`` only.
        include_last_offset: whether ``offsets`` also has the end of the last bag, ``(B + 1,)``.
        padding_idx: an index that is left out.
        max_norm: rows of a larger norm are scaled to it, as by ``aten::embedding_renorm_``; the
            table is not changed.
        norm_type: the norm of ``max_norm``.

    Returns:
        ``(B, D)`` in the dtype of ``weight``; zeros for an empty bag.

    Raises:
        ValueError: shapes do not fit, the mode is unknown, or ``per_sample_weights`` are given with
            another mode than ``sum``.
    """
    _check(indices, offsets, mode, per_sample_weights)
    flat = indices.reshape(-1)
    if offsets is None:
        bags, size = indices.shape
        bag_of = mx.repeat(mx.arange(bags), size)
    else:
        bags = offsets.size - include_last_offset
        starts = mx.zeros(flat.size + 1, dtype=mx.int32).at[offsets].add(1)
        bag_of = mx.cumsum(starts)[:-1] - 1
    # One more bag takes the padding, and all indices after the last offset.
    if padding_idx is not None:
        bag_of = mx.where(flat == padding_idx, bags, bag_of)
    rows = weight[flat]
    if max_norm is not None:
        rows = renormalised(rows, max_norm, norm_type)
    rows = upcast(rows)
    if per_sample_weights is not None:
        rows = rows * upcast(per_sample_weights).reshape(-1, 1)
    reduced = _largest(rows, bag_of, bags + 1) if mode == "max" else _sum(rows, bag_of, bags + 1)
    if mode == "mean":
        counts = mx.zeros((bags + 1, 1), rows.dtype).at[bag_of].add(1)
        reduced = reduced / mx.maximum(counts, 1)
    return reduced[:bags].astype(weight.dtype)


def _sum(rows: mx.array, bag_of: mx.array, bags: int) -> mx.array:
    return mx.zeros((bags, rows.shape[1]), rows.dtype).at[bag_of].add(rows)


def _largest(rows: mx.array, bag_of: mx.array, bags: int) -> mx.array:
    """Return the maximum of every bag; the first of equal ones takes the gradient, as in torch."""
    count, dims = rows.shape
    if count == 0:
        return mx.zeros((bags, dims), rows.dtype)
    values = mx.stop_gradient(rows)
    best = mx.full((bags, dims), -math.inf, values.dtype).at[bag_of].maximum(values)
    is_best = (values == best[bag_of]) | mx.isnan(values)
    indices = mx.where(is_best, mx.arange(count)[:, None], count)
    first = mx.full((bags, dims), count, indices.dtype).at[bag_of].minimum(indices)
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
    """:func:`embedding_bag` with a learned table; matches ``torch.nn.EmbeddingBag``.

    ``max_norm`` scales rows as in :class:`mlxport.layers.embedding.embedding.Embedding`.

    Args:
        num_embeddings: the number of rows.
        dims: their length.
        mode: ``sum``, ``mean`` or ``max``.
        include_last_offset: whether offsets also have the end of the last bag.
        padding_idx: an index that is left out.
        max_norm: rows of a larger norm are scaled to it.
        norm_type: the norm of ``max_norm``.

    Raises:
        ValueError: from the call, as :func:`embedding_bag`.
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
