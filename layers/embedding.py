"""A table of vectors whose lengths are bounded."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.reduction import norm
from mlxport.layers.statistics import widened


def renormalised(rows: mx.array, max_norm: float, norm_type: float = 2.0) -> mx.array:
    """Return vectors shortened to a norm; as ``aten::embedding_renorm_`` leaves them.

    Args:
        rows: ``(*B, D)``, floating.
        max_norm: what the norm of a longer vector becomes.
        norm_type: the norm; see :func:`mlxport.layers.reduction.norm`.

    Returns:
        The shape and dtype of ``rows``; gradients pass as if nothing was shortened.
    """
    wide = widened(mx.stop_gradient(rows))
    length = norm(wide, norm_type, axis=-1, keepdims=True)
    # PyTorch's: a little shorter than asked for
    scale = mx.where(length > max_norm, max_norm / (length + 1e-7), 1)
    return rows + mx.stop_gradient((wide * scale).astype(rows.dtype) - rows)


class Embedding(nn.Embedding):
    """``mlx.nn.Embedding`` with ``max_norm``; matches ``torch.nn.Embedding``.

    PyTorch shortens the rows it looks up inside of the table, in every forward pass. Here they are
    shortened on their way out and the table stays as it is: the results are the same, and so are
    the gradients, but an optimizer's step starts from the longer row.
    """

    def __init__(
        self, num_embeddings: int, dims: int, max_norm: float, norm_type: float = 2.0
    ) -> None:
        super().__init__(num_embeddings, dims)
        self.max_norm, self.norm_type = max_norm, norm_type

    def _extra_repr(self) -> str:
        return f"{super()._extra_repr()}, max_norm={self.max_norm}, norm_type={self.norm_type}"

    def __call__(self, x: Any) -> mx.array:
        """Look up rows: ``(*B,)`` to ``(*B, dims)``."""
        return renormalised(self.weight[x], self.max_norm, self.norm_type)
