"""Loss layers without weights, with the arguments and defaults of ``torch.nn``.

The functions they call document the computation, shapes and errors. ``mlx.nn`` has losses as
functions only.
"""

from __future__ import annotations

from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.loss.binary import soft_margin_loss
from mlxport.layers.loss.ctc import Lengths, ctc_loss
from mlxport.layers.loss.distance import cosine_embedding_loss, triplet_margin_loss
from mlxport.layers.loss.margin import (
    hinge_embedding_loss,
    margin_ranking_loss,
    multilabel_margin_loss,
)
from mlxport.layers.loss.reduction import REDUCTIONS, check_reduction
from mlxport.layers.loss.regression import (
    gaussian_nll_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    poisson_nll_loss,
    smooth_l1_loss,
)


class Loss(nn.Module):
    """Base of all losses.

    Args:
        reduction: ``mean`` of the terms, their ``sum``, or ``none``.

    Raises:
        ValueError: the reduction is unknown.
    """

    reductions: ClassVar[tuple[str, ...]] = REDUCTIONS

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        check_reduction(type(self).__name__, reduction, self.reductions)
        self.reduction = reduction

    def _extra_repr(self) -> str:
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return ", ".join(f"{name}={value!r}" for name, value in settings.items())


class L1Loss(Loss):
    """:func:`l1_loss`; matches ``torch.nn.L1Loss``."""

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare two arrays that broadcast."""
        return l1_loss(x, target, self.reduction)


class MSELoss(Loss):
    """:func:`mse_loss`; matches ``torch.nn.MSELoss``."""

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare two arrays that broadcast."""
        return mse_loss(x, target, self.reduction)


class SmoothL1Loss(Loss):
    """:func:`smooth_l1_loss`; matches ``torch.nn.SmoothL1Loss``."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare two arrays that broadcast."""
        return smooth_l1_loss(x, target, self.reduction, self.beta)


class HuberLoss(Loss):
    """:func:`huber_loss`; matches ``torch.nn.HuberLoss``.

    Raises:
        TypeError: ``delta`` is no real number.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        if not isinstance(delta, (int, float)):
            raise TypeError(f"[HuberLoss] 'delta' must be a real number but got {delta!r}.")
        self.delta = delta

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare two arrays that broadcast."""
        return huber_loss(x, target, self.reduction, self.delta)


class KLDivLoss(Loss):
    """:func:`kl_div`; matches ``torch.nn.KLDivLoss``."""

    reductions = (*REDUCTIONS, "batchmean")

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare log-probabilities with probabilities."""
        return kl_div(x, target, self.reduction, self.log_target)


class PoissonNLLLoss(Loss):
    """:func:`poisson_nll_loss`; matches ``torch.nn.PoissonNLLLoss``."""

    def __init__(
        self,
        reduction: str = "mean",
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare rates with counts."""
        return poisson_nll_loss(x, target, self.log_input, self.full, self.eps, self.reduction)


class GaussianNLLLoss(Loss):
    """:func:`gaussian_nll_loss`; matches ``torch.nn.GaussianNLLLoss``."""

    def __init__(self, reduction: str = "mean", full: bool = False, eps: float = 1e-6) -> None:
        super().__init__(reduction)
        self.full, self.eps = full, eps

    def __call__(self, x: mx.array, target: mx.array, var: mx.array | float) -> mx.array:
        """Compare expected values and their variances with values."""
        return gaussian_nll_loss(x, target, var, self.full, self.eps, self.reduction)


class HingeEmbeddingLoss(Loss):
    """:func:`hinge_embedding_loss`; matches ``torch.nn.HingeEmbeddingLoss``."""

    def __init__(self, reduction: str = "mean", margin: float = 1.0) -> None:
        super().__init__(reduction)
        self.margin = margin

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare distances with targets 1 and -1."""
        return hinge_embedding_loss(x, target, self.margin, self.reduction)


class SoftMarginLoss(Loss):
    """:func:`soft_margin_loss`; matches ``torch.nn.SoftMarginLoss``."""

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare logits with targets 1 and -1."""
        return soft_margin_loss(x, target, self.reduction)


class MarginRankingLoss(Loss):
    """:func:`margin_ranking_loss`; matches ``torch.nn.MarginRankingLoss``."""

    def __init__(self, reduction: str = "mean", margin: float = 0.0) -> None:
        super().__init__(reduction)
        self.margin = margin

    def __call__(self, x1: mx.array, x2: mx.array, target: mx.array) -> mx.array:
        """Compare pairs of scores with targets 1 and -1."""
        return margin_ranking_loss(x1, x2, target, self.margin, self.reduction)


class MultiLabelMarginLoss(Loss):
    """:func:`multilabel_margin_loss`; matches ``torch.nn.MultiLabelMarginLoss``."""

    def __call__(self, x: mx.array, target: mx.array) -> mx.array:
        """Compare scores with lists of classes."""
        return multilabel_margin_loss(x, target, self.reduction)


class CosineEmbeddingLoss(Loss):
    """:func:`cosine_embedding_loss`; matches ``torch.nn.CosineEmbeddingLoss``."""

    def __init__(self, reduction: str = "mean", margin: float = 0.0) -> None:
        super().__init__(reduction)
        self.margin = margin

    def __call__(self, x1: mx.array, x2: mx.array, target: mx.array) -> mx.array:
        """Compare pairs of vectors with targets 1 and -1."""
        return cosine_embedding_loss(x1, x2, target, self.margin, self.reduction)


class TripletMarginLoss(Loss):
    """:func:`triplet_margin_loss`; matches ``torch.nn.TripletMarginLoss``."""

    def __init__(
        self,
        reduction: str = "mean",
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
    ) -> None:
        super().__init__(reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def __call__(self, anchor: mx.array, positive: mx.array, negative: mx.array) -> mx.array:
        """Compare the distances of the anchor to a positive and a negative."""
        return triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )


class CTCLoss(Loss):
    """:func:`ctc_loss`; matches ``torch.nn.CTCLoss``."""

    def __init__(
        self, reduction: str = "mean", blank: int = 0, zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction)
        self.blank, self.zero_infinity = blank, zero_infinity

    def __call__(
        self,
        log_probs: mx.array,
        targets: mx.array,
        input_lengths: Lengths,
        target_lengths: Lengths,
    ) -> mx.array:
        """Compare log-probabilities of every step with label sequences."""
        return ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
        )
