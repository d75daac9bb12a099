"""Adaptive softmax: a loss over very many classes, with the rare ones in clusters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.activation.functions import log_softmax
from mlxport.layers.arrays.picking import take_along_axis_or_nan
from mlxport.layers.arrays.reduction import mean
from mlxport.layers.norm.statistics import upcast


class AdaptiveSoftmaxOutput(NamedTuple):
    """The output of the adaptive softmax.

    Attributes:
        output: log-probabilities of the targets, ``(N,)`` or ``()``.
        loss: the mean of their negatives, ``()``.
    """

    output: mx.array
    loss: mx.array


class AdaptiveLogSoftmaxWithLoss(nn.Module):
    """Adaptive softmax with its loss; matches ``torch.nn.AdaptiveLogSoftmaxWithLoss``.

    It has PyTorch's parameters. PyTorch runs a cluster on its samples only; here every cluster runs
    on all samples, since shapes must not depend on values. PyTorch raises where a target is out of
    range; here its output is NaN.

    Shape:
        - Input: ``(N, in_features)`` and targets ``(N,)``, or ``(in_features,)`` and ``()``
        - Output: ``(N,)`` or ``()``, and a loss ``()``

    Args:
        in_features: the size of a sample.
        n_classes: the number of classes, the most frequent first.
        cutoffs: the first class of each cluster; increasing, from 1 to ``n_classes - 1``.
        div_value: the hidden size of each cluster is that of the previous one over this.
        head_bias: whether the head has a bias.

    Raises:
        ValueError: ``cutoffs`` do not increase or are out of range; from the call: shapes do not
            fit.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        if not cutoffs or any(a >= b for a, b in pairwise((0, *cutoffs, n_classes))):
            raise ValueError(
                "[AdaptiveLogSoftmaxWithLoss] 'cutoffs' must increase, from 1 to "
                f"{n_classes - 1}, but got {cutoffs}."
            )
        self.cutoffs = (*cutoffs, n_classes)
        self.head = nn.Linear(in_features, cutoffs[0] + len(cutoffs), bias=head_bias)
        self.tail = []
        for i, (first, end) in enumerate(pairwise(self.cutoffs), start=1):
            hidden = int(in_features // div_value**i)
            project = nn.Linear(in_features, hidden, bias=False)
            self.tail.append([project, nn.Linear(hidden, end - first, bias=False)])

    def __call__(self, x: mx.array, target: mx.array) -> AdaptiveSoftmaxOutput:
        """Return the targets' log-probabilities and the mean of their negatives."""
        if target.ndim > 1 or x.shape[:-1] != target.shape:
            raise ValueError(
                "[AdaptiveLogSoftmaxWithLoss] input must be (N, in_features) for a target (N,), or "
                f"(in_features,) for (), but got {x.shape} and {target.shape}."
            )
        index = target.astype(mx.int64)[..., None]
        head = self._head(x)
        output = take_along_axis_or_nan(head, index, axis=-1)
        for i, (first, end) in enumerate(pairwise(self.cutoffs)):
            inside = (index >= first) & (index < end)
            within = take_along_axis_or_nan(
                self._cluster(x, i), mx.where(inside, index - first, 0), axis=-1
            )
            cluster = self.cutoffs[0] + i
            output = mx.where(inside, within + head[..., cluster : cluster + 1], output)
        outside = (index < 0) | (index >= self.cutoffs[-1])
        output = mx.where(outside, mx.nan, output).squeeze(-1)
        return AdaptiveSoftmaxOutput(output.astype(x.dtype), -mean(output).astype(x.dtype))

    def log_prob(self, x: mx.array) -> mx.array:
        """Return the log-probabilities of all classes, ``(N, n_classes)``."""
        head, common = self._head(x), self.cutoffs[0]
        parts = [head[..., :common]]
        for i in range(len(self.tail)):
            parts.append(self._cluster(x, i) + head[..., common + i : common + i + 1])
        return mx.concatenate(parts, axis=-1).astype(x.dtype)

    def predict(self, x: mx.array) -> mx.array:
        """Return the most likely class, ``(N,)`` in int64."""
        return mx.argmax(self.log_prob(x), axis=-1).astype(mx.int64)

    def _head(self, x: mx.array) -> mx.array:
        return log_softmax(upcast(self.head(x)), axis=-1)

    def _cluster(self, x: mx.array, i: int) -> mx.array:
        project, classify = self.tail[i]
        return log_softmax(upcast(classify(project(x))), axis=-1)

    def _extra_repr(self) -> str:
        return f"cutoffs={self.cutoffs}"
