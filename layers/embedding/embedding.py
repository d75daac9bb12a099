"""Embedding table with PyTorch's ``padding_idx``, ``max_norm`` and ``norm_type``."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.arrays.reduction import norm
from mlxport.layers.norm.statistics import upcast


def renormalised(rows: mx.array, max_norm: float, norm_type: float = 2.0) -> mx.array:
    """Return vectors scaled to a maximal norm; as ``aten::embedding_renorm_`` does in place.

    Args:
        rows: ``(*B, D)``, floating.
        max_norm: vectors of a larger norm are scaled to it.
        norm_type: the norm; see :func:`mlxport.layers.arrays.reduction.norm`.

    Returns:
        The shape and dtype of ``rows``; the gradient is that of the identity.
    """
    wide = upcast(mx.stop_gradient(rows))
    length = norm(wide, norm_type, axis=-1, keepdims=True)
    # as PyTorch: slightly below max_norm
    scale = mx.where(length > max_norm, max_norm / (length + 1e-7), 1)
    return rows + mx.stop_gradient((wide * scale).astype(rows.dtype) - rows)


class Embedding(nn.Embedding):
    """``mlx.nn.Embedding`` with PyTorch's further arguments; matches ``torch.nn.Embedding``.

    With ``max_norm`` PyTorch scales rows in the table itself when it looks them up. Here the
    returned rows are scaled and the table is not changed: results and gradients are the same, but
    an optimizer step starts from the unscaled row.

    Args:
        num_embeddings (int): The number of rows.
        dims (int): The length of a row.
        padding_idx (int, optional): A row that receives no gradient, counted from the end if
            negative. In a new table it is zero. Default: ``None``.
        max_norm (float, optional): Rows of a larger norm are scaled to it. Default: ``None``.
        norm_type (float, optional): The norm. Default: ``2.0``.

    Raises:
        ValueError: If a size is negative or ``padding_idx`` is no row of the table.
    """

    def __init__(
        self,
        num_embeddings: int,
        dims: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> None:
        sizes = {"num_embeddings": num_embeddings, "dims": dims}
        if negative := [f"{name}={size}" for name, size in sizes.items() if size < 0]:
            raise ValueError(f"[Embedding] a size cannot be negative: {', '.join(negative)}.")
        super().__init__(num_embeddings, dims)
        self.padding_idx, self.max_norm, self.norm_type = padding_idx, max_norm, norm_type
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(
                    f"[Embedding] 'padding_idx' must be within num_embeddings={num_embeddings} "
                    f"but got {padding_idx}."
                )
            self.padding_idx = padding_idx % num_embeddings
            self.weight[self.padding_idx] = 0

    def _extra_repr(self) -> str:
        given = {"padding_idx": self.padding_idx, "max_norm": self.max_norm}
        if self.max_norm is not None:
            given["norm_type"] = self.norm_type
        changed = [f", {name}={value}" for name, value in given.items() if value is not None]
        return f"{super()._extra_repr()}{''.join(changed)}"

    def __call__(self, x: Any) -> mx.array:
        """Look up rows: ``(*B,)`` to ``(*B, dims)``."""
        rows: mx.array = self.weight[x]
        if self.padding_idx is not None:
            padding = mx.expand_dims(mx.array(x) == self.padding_idx, -1)
            rows = mx.where(padding, mx.stop_gradient(rows), rows)
        if self.max_norm is not None:
            rows = renormalised(rows, self.max_norm, self.norm_type)
        return rows
