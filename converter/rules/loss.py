"""Rules for losses, for training in MLX. They keep PyTorch's axis order: the class axis is 1.

Whole models have no losses: a loss is converted alone, by ``mlxport.convert_layer``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from mlxport import layers
from mlxport.converter.rules.composite import every_tensor
from mlxport.converter.rules.entries import unchanged_entries
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, changed, rule

_CLASSES = "a class out of range gives NaN where PyTorch raises"
_PROBABILITIES = "a probability out of range gives NaN where PyTorch raises"
_VARIANCE = "a negative variance gives NaN where PyTorch raises"
_OVERFLOW = "finite where PyTorch's exponential overflows"
_CTC = (
    "a length out of range gives NaN where PyTorch raises; the gradient is 0 where no alignment is "
    "possible"
)
_CLUSTERS = f"every cluster runs on every sample; {_CLASSES}"
_DISTANCE = "distance_function must be PairwiseDistance, without keepdim"

# torch's class -> its MLX layer, its arguments other than reduction, and the restrictions.
_LOSSES: dict[type[torch.nn.Module], tuple[type[layers.Loss], Mapping[str, Any], str]] = {
    torch.nn.L1Loss: (layers.L1Loss, {}, ""),
    torch.nn.MSELoss: (layers.MSELoss, {}, ""),
    torch.nn.SmoothL1Loss: (layers.SmoothL1Loss, {"beta": 1.0}, ""),
    torch.nn.HuberLoss: (layers.HuberLoss, {"delta": 1.0}, ""),
    torch.nn.KLDivLoss: (layers.KLDivLoss, {"log_target": False}, ""),
    torch.nn.PoissonNLLLoss: (
        layers.PoissonNLLLoss,
        {"log_input": True, "full": False, "eps": 1e-8},
        "",
    ),
    torch.nn.GaussianNLLLoss: (layers.GaussianNLLLoss, {"full": False, "eps": 1e-6}, _VARIANCE),
    torch.nn.HingeEmbeddingLoss: (layers.HingeEmbeddingLoss, {"margin": 1.0}, ""),
    torch.nn.SoftMarginLoss: (layers.SoftMarginLoss, {}, _OVERFLOW),
    torch.nn.MarginRankingLoss: (layers.MarginRankingLoss, {"margin": 0.0}, ""),
    torch.nn.MultiLabelMarginLoss: (layers.MultiLabelMarginLoss, {}, _CLASSES),
    torch.nn.CosineEmbeddingLoss: (layers.CosineEmbeddingLoss, {"margin": 0.0}, ""),
    torch.nn.TripletMarginLoss: (
        layers.TripletMarginLoss,
        {"margin": 1.0, "p": 2.0, "eps": 1e-6, "swap": False},
        "",
    ),
    torch.nn.CTCLoss: (layers.CTCLoss, {"blank": 0, "zero_infinity": False}, _CTC),
    torch.nn.CrossEntropyLoss: (
        layers.CrossEntropyLoss,
        {"ignore_index": -100, "label_smoothing": 0.0},
        _CLASSES,
    ),
    torch.nn.NLLLoss: (layers.NLLLoss, {"ignore_index": -100}, _CLASSES),
    torch.nn.NLLLoss2d: (layers.NLLLoss, {"ignore_index": -100}, _CLASSES),
    torch.nn.BCELoss: (layers.BCELoss, {}, _PROBABILITIES),
    torch.nn.BCEWithLogitsLoss: (layers.BCEWithLogitsLoss, {}, ""),
    torch.nn.MultiLabelSoftMarginLoss: (layers.MultiLabelSoftMarginLoss, {}, ""),
    torch.nn.MultiMarginLoss: (layers.MultiMarginLoss, {"p": 1, "margin": 1.0}, _CLASSES),
}


def _register(
    source: type[torch.nn.Module],
    target: type[layers.Loss],
    defaults: Mapping[str, Any],
    restrictions: str,
) -> None:
    def build(module: Any) -> LayerSpec:
        arguments = changed(defaults, **{name: getattr(module, name) for name in defaults})
        kwargs = {**_reduction(module, target), **_weight_shapes(module), **arguments}
        _check(kwargs)
        return LayerSpec(
            target,
            kwargs=kwargs,
            entries=unchanged_entries(module, "weight", "pos_weight"),
            axes=Axes.LOGICAL,
        )

    name = f"layers.{target.__name__}"
    rule(source, target=name, restrictions=restrictions, leaf=False)(build)


def _reduction(module: Any, target: type[layers.Loss]) -> dict[str, Any]:
    if module.reduction not in target.reductions:
        raise Refusal(f"reduction={module.reduction!r} is not one of {target.reductions}")
    return changed({"reduction": "mean"}, reduction=module.reduction)


def _weight_shapes(module: Any) -> dict[str, tuple[int, ...]]:
    weights = {name: getattr(module, name, None) for name in ("weight", "pos_weight")}
    return {f"{name}_shape": tuple(w.shape) for name, w in weights.items() if w is not None}


def _check(arguments: Mapping[str, Any]) -> None:
    """Refuse what PyTorch constructs but cannot run."""
    limits: dict[str, tuple[Callable[[Any], bool], str]] = {
        "beta": (lambda value: value >= 0, "must not be negative"),
        "delta": (lambda value: value > 0, "must be positive"),
        "label_smoothing": (lambda value: 0 <= value <= 1, "must be from 0 to 1"),
    }
    for name, (is_valid, text) in limits.items():
        if name in arguments and not is_valid(arguments[name]):
            raise Refusal(f"{name}={arguments[name]} {text}")


for _source, (_target, _defaults, _restrictions) in _LOSSES.items():
    _register(_source, _target, _defaults, _restrictions)


@rule(
    torch.nn.TripletMarginWithDistanceLoss,
    target="layers.TripletMarginLoss",
    restrictions=_DISTANCE,
    leaf=False,
)
def triplet_margin_with_distance(module: torch.nn.TripletMarginWithDistanceLoss) -> LayerSpec:
    """``layers.TripletMarginLoss`` for PairwiseDistance; other distances are PyTorch functions."""
    distance: Any = module.distance_function
    if distance in (F.pairwise_distance, torch.pairwise_distance):
        distance = torch.nn.PairwiseDistance()
    if type(distance) is not torch.nn.PairwiseDistance or distance.keepdim:
        raise Refusal(f"distance_function={distance} is not PairwiseDistance without keepdim")
    every_tensor(distance, lambda: torch.nn.PairwiseDistance(distance.norm, distance.eps))
    kwargs = _reduction(module, layers.TripletMarginLoss) | changed(
        {"margin": 1.0, "p": 2.0, "eps": 1e-6, "swap": False},
        margin=module.margin,
        p=distance.norm,
        eps=distance.eps,
        swap=module.swap,
    )
    return LayerSpec(layers.TripletMarginLoss, kwargs=kwargs, axes=Axes.LOGICAL)


@rule(
    torch.nn.LinearCrossEntropyLoss,
    target="layers.LinearCrossEntropyLoss",
    restrictions=f"options (how PyTorch splits the work) have no counterpart; {_CLASSES}",
    leaf=False,
)
def linear_cross_entropy(module: torch.nn.LinearCrossEntropyLoss) -> LayerSpec:
    """``layers.LinearCrossEntropyLoss``: MLX has none."""
    defaults = {"bias": False, "ignore_index": None, "label_smoothing": 0.0}
    found: dict[str, Any] = {
        "bias": module.linear.bias is not None,
        "ignore_index": module.ignore_index,
        "label_smoothing": module.label_smoothing,
    }
    sizes = tuple(module.out_features)
    kwargs = {
        **({"out_features": sizes} if sizes else {}),
        **_reduction(module, layers.LinearCrossEntropyLoss),
        **_weight_shapes(module),
        **changed(defaults, **found),
    }
    _check(kwargs)
    args = (module.linear.in_features, module.num_classes)
    entries = every_tensor(
        module,
        lambda: torch.nn.LinearCrossEntropyLoss(
            *args,
            out_features=module.out_features,
            reduction=module.reduction,
            weight=module.weight,
            options=module.options,
            **found,
        ),
    )
    return LayerSpec(
        layers.LinearCrossEntropyLoss, args, kwargs, entries=entries, axes=Axes.LOGICAL
    )


@rule(
    torch.nn.AdaptiveLogSoftmaxWithLoss,
    target="layers.AdaptiveLogSoftmaxWithLoss",
    restrictions=_CLUSTERS,
    leaf=False,
)
def adaptive_log_softmax(module: torch.nn.AdaptiveLogSoftmaxWithLoss) -> LayerSpec:
    """``layers.AdaptiveLogSoftmaxWithLoss``: MLX has none."""
    args: tuple[Any, ...] = (module.in_features, module.n_classes, tuple(module.cutoffs[:-1]))
    found: dict[str, Any] = {"div_value": module.div_value, "head_bias": module.head_bias}
    entries = every_tensor(module, lambda: torch.nn.AdaptiveLogSoftmaxWithLoss(*args, **found))
    return LayerSpec(
        layers.AdaptiveLogSoftmaxWithLoss,
        args,
        changed({"div_value": 4.0, "head_bias": False}, **found),
        entries=entries,
        axes=Axes.LOGICAL,
    )
