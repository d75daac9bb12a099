"""Loss layers with weights of classes or elements, with the arguments of ``torch.nn``.

Weights are frozen: no optimizer updates them. The functions they call document the computation,
shapes and errors.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.loss.binary import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    multilabel_soft_margin_loss,
)
from mlxport.layers.loss.classification import (
    check_label_smoothing,
    cross_entropy,
    linear_cross_entropy,
    nll_loss,
)
from mlxport.layers.loss.margin import multi_margin_loss
from mlxport.layers.loss.modules import Loss


class WeightedLoss(Loss):
    """A loss with weights, which start as ones.

    Args:
        reduction: ``mean``, ``sum`` or ``none``.
        weight_shape: of ``weight``; None for a loss without.
    """

    weights: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(
        self, reduction: str = "mean", weight_shape: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(reduction)
        if weight_shape is not None:
            self.weight = mx.ones(weight_shape)
        self._freeze_weights()

    def unfreeze(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Unfreeze the parameters; weights stay frozen."""
        super().unfreeze(*args, **kwargs)
        self._freeze_weights()
        return self

    def _class_weights(self, x: mx.array) -> mx.array | None:
        weight: mx.array | None = self.get("weight")
        if weight is not None and weight.dtype != x.dtype:
            raise ValueError(
                f"[{type(self).__name__}] expected input of the weights' dtype {weight.dtype} but "
                f"got {x.dtype}. Convert one of the two."
            )
        return weight

    def _freeze_weights(self) -> None:
        self.freeze(keys=[name for name in self.weights if name in self], recurse=False)


class CrossEntropyLoss(WeightedLoss):
    """:func:`cross_entropy`; matches ``torch.nn.CrossEntropyLoss``."""

    def __init__(
        self,
        reduction: str = "mean",
        weight_shape: tuple[int, ...] | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction, weight_shape)
        check_label_smoothing("CrossEntropyLoss", label_smoothing)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare logits with classes or probabilities."""
        return cross_entropy(
            x,
            target,
            self._class_weights(x),
            self.ignore_index,
            self.reduction,
            self.label_smoothing,
        )


class NLLLoss(WeightedLoss):
    """:func:`nll_loss`; matches ``torch.nn.NLLLoss``."""

    def __init__(
        self,
        reduction: str = "mean",
        weight_shape: tuple[int, ...] | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(reduction, weight_shape)
        self.ignore_index = ignore_index

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare log-probabilities with classes."""
        return nll_loss(x, target, self._class_weights(x), self.ignore_index, self.reduction)


class BCELoss(WeightedLoss):
    """:func:`binary_cross_entropy`; matches ``torch.nn.BCELoss``."""

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare probabilities with targets from 0 to 1."""
        return binary_cross_entropy(x, target, self.get("weight"), self.reduction)


class BCEWithLogitsLoss(WeightedLoss):
    """:func:`binary_cross_entropy_with_logits`; matches ``torch.nn.BCEWithLogitsLoss``."""

    weights = ("weight", "pos_weight")

    def __init__(
        self,
        reduction: str = "mean",
        weight_shape: tuple[int, ...] | None = None,
        pos_weight_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(reduction, weight_shape)
        if pos_weight_shape is not None:
            self.pos_weight = mx.ones(pos_weight_shape)
        self._freeze_weights()

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare logits with targets from 0 to 1."""
        return binary_cross_entropy_with_logits(
            x, target, self.get("weight"), self.get("pos_weight"), self.reduction
        )


class MultiLabelSoftMarginLoss(WeightedLoss):
    """:func:`multilabel_soft_margin_loss`; matches ``torch.nn.MultiLabelSoftMarginLoss``."""

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare logits of every class with targets 0 and 1."""
        return multilabel_soft_margin_loss(x, target, self.get("weight"), self.reduction)


class MultiMarginLoss(WeightedLoss):
    """:func:`multi_margin_loss`; matches ``torch.nn.MultiMarginLoss``."""

    def __init__(
        self,
        reduction: str = "mean",
        weight_shape: tuple[int, ...] | None = None,
        p: int = 1,
        margin: float = 1.0,
    ) -> None:
        super().__init__(reduction, weight_shape)
        self.p, self.margin = p, margin

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare scores with classes."""
        return multi_margin_loss(x, target, self.p, self.margin, self.get("weight"), self.reduction)


class LinearCrossEntropyLoss(WeightedLoss):
    """:func:`linear_cross_entropy`; matches ``torch.nn.LinearCrossEntropyLoss``.

    Args:
        in_features: the size of a sample.
        num_classes: the number of classes.
        out_features: the sizes ``(*d,)`` of the positions classified for each sample.
        bias: whether ``linear`` has one.
        reduction: ``mean``, ``sum`` or ``none``.
        weight_shape: of ``weight``; None for a loss without.
        ignore_index: None stands for -100 and allows probabilities.
        label_smoothing: 0 to 1.

    Raises:
        ValueError: ``label_smoothing`` is not from 0 to 1.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        reduction: str = "mean",
        weight_shape: tuple[int, ...] | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction, weight_shape)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                "[LinearCrossEntropyLoss] 'label_smoothing' must be from 0 to 1 but got "
                f"{label_smoothing}."
            )
        self.linear = nn.Linear(in_features, num_classes * math.prod(out_features), bias)
        self.sizes = (num_classes, *out_features)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Map samples to logits and compare these with classes or probabilities."""
        bias = self.linear.get("bias")
        return linear_cross_entropy(
            x,
            self.linear.weight.reshape(*self.sizes, -1),
            target,
            None if bias is None else bias.reshape(self.sizes),
            self.get("weight"),
            self.ignore_index,
            self.reduction,
            self.label_smoothing,
        )
