from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch

from mlxport import layers
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import build_layer, spec_for
from mlxport.converter.rules.registry import RULES, Axes

T = torch.nn
Inputs = Callable[[], tuple[torch.Tensor, ...]]
REDUCTIONS = ("mean", "sum", "none")


def values(*shape: int) -> Inputs:
    return lambda: (torch.randn(shape) * 2, torch.randn(shape))


def probabilities(*shape: int) -> Inputs:
    return lambda: (torch.rand(shape), torch.rand(shape))


def logits(*shape: int) -> Inputs:
    return lambda: (torch.randn(shape) * 3, torch.rand(shape))


def log_probabilities(*shape: int) -> Inputs:
    return lambda: (torch.randn(shape).log_softmax(-1), torch.rand(shape) + 0.1)


def both_logarithms(*shape: int) -> Inputs:
    return lambda: (torch.randn(shape).log_softmax(-1), torch.randn(shape).log_softmax(-1))


def counts(*shape: int) -> Inputs:
    return lambda: (torch.rand(shape) + 0.5, torch.rand(shape) * 5 + 0.1)


def gaussians(shape: tuple[int, ...], var: tuple[int, ...]) -> Inputs:
    return lambda: (torch.randn(shape), torch.randn(shape), torch.rand(var))


def signs(*shape: int, scores: int = 1) -> Inputs:
    def build() -> tuple[torch.Tensor, ...]:
        target = torch.randint(0, 2, shape) * 2 - 1
        return (*(torch.randn(shape) * 2 for _ in range(scores)), target)

    return build


def pairs(*shape: int) -> Inputs:
    return lambda: (
        torch.randn(shape),
        torch.randn(shape),
        torch.randint(0, 2, shape[:-1]) * 2 - 1,
    )


def triplets(*shape: int) -> Inputs:
    return lambda: tuple(torch.randn(shape) for _ in range(3))


def classes(*shape: int) -> Inputs:
    """Logits `(N, C, *d)` or `(C,)`, and classes, of which the second is ignored by default."""

    def build() -> tuple[torch.Tensor, ...]:
        sizes = shape[:1] + shape[2:] if len(shape) > 1 else ()
        target = torch.randint(0, shape[min(1, len(shape) - 1)], sizes)
        if sizes:
            target.view(-1)[1] = -100
        return torch.randn(shape) * 3, target

    return build


def in_range(*shape: int) -> Inputs:
    def build() -> tuple[torch.Tensor, ...]:
        return torch.randn(shape), torch.randint(0, shape[-1], shape[:-1])

    return build


def distributions(*shape: int) -> Inputs:
    axis = min(1, len(shape) - 1)
    return lambda: (torch.randn(shape) * 3, torch.randn(shape).softmax(axis))


def label_lists(*shape: int) -> Inputs:
    """Lists of classes that end at -1 and hold another class behind it, and one twice."""

    def build() -> tuple[torch.Tensor, ...]:
        target = torch.randint(0, shape[-1], shape)
        target[..., 1] = target[..., 0]
        target[..., 3] = -1
        return torch.randn(shape), target

    return build


WEIGHT = torch.tensor([0.2, 1.0, 0.0, 3.0, 0.7])
SMOOTH = {"label_smoothing": 0.3}

# class, arguments besides reduction, inputs
CASES: dict[str, tuple[Any, dict[str, Any], Inputs]] = {
    "l1": (T.L1Loss, {}, values(4, 5)),
    "l1_scalar": (T.L1Loss, {}, values()),
    "mse": (T.MSELoss, {}, values(4, 5)),
    "mse_long": (T.MSELoss, {}, values(3, 5000)),
    "smooth_l1": (T.SmoothL1Loss, {}, values(4, 5)),
    "smooth_l1_beta": (T.SmoothL1Loss, {"beta": 2.5}, values(4, 5)),
    "smooth_l1_beta0": (T.SmoothL1Loss, {"beta": 0.0}, values(4, 5)),
    "huber": (T.HuberLoss, {}, values(4, 5)),
    "huber_delta": (T.HuberLoss, {"delta": 0.3}, values(4, 5)),
    "kl": (T.KLDivLoss, {}, log_probabilities(4, 5)),
    "kl_log_target": (T.KLDivLoss, {"log_target": True}, both_logarithms(4, 5)),
    "poisson": (T.PoissonNLLLoss, {}, counts(4, 5)),
    "poisson_full": (T.PoissonNLLLoss, {"full": True}, counts(4, 5)),
    "poisson_rate": (
        T.PoissonNLLLoss,
        {"log_input": False, "full": True, "eps": 0.1},
        counts(4, 5),
    ),
    "gaussian": (T.GaussianNLLLoss, {}, gaussians((4, 5), (4, 5))),
    "gaussian_full": (T.GaussianNLLLoss, {"full": True, "eps": 0.5}, gaussians((4, 5), (4, 1))),
    "gaussian_per_row": (T.GaussianNLLLoss, {}, gaussians((4, 5), (4,))),
    "hinge": (T.HingeEmbeddingLoss, {}, signs(4, 5)),
    "hinge_margin": (T.HingeEmbeddingLoss, {"margin": -0.5}, signs(4, 5)),
    "soft_margin": (T.SoftMarginLoss, {}, signs(4, 5)),
    "ranking": (T.MarginRankingLoss, {}, signs(7, scores=2)),
    "ranking_margin": (T.MarginRankingLoss, {"margin": 0.5}, signs(4, 5, scores=2)),
    "multilabel_margin": (T.MultiLabelMarginLoss, {}, label_lists(4, 5)),
    "multilabel_margin_single": (T.MultiLabelMarginLoss, {}, label_lists(5)),
    "multilabel_soft": (T.MultiLabelSoftMarginLoss, {}, logits(4, 5)),
    "multilabel_soft_weight": (T.MultiLabelSoftMarginLoss, {"weight": WEIGHT}, logits(4, 5)),
    "multi_margin": (T.MultiMarginLoss, {}, in_range(4, 5)),
    "multi_margin_single": (T.MultiMarginLoss, {"p": 2}, in_range(5)),
    "multi_margin_all": (
        T.MultiMarginLoss,
        {"p": 2, "margin": 0.4, "weight": WEIGHT},
        in_range(6, 5),
    ),
    "cosine": (T.CosineEmbeddingLoss, {}, pairs(6, 5)),
    "cosine_single": (T.CosineEmbeddingLoss, {"margin": -0.5}, pairs(5)),
    "triplet": (T.TripletMarginLoss, {}, triplets(6, 5)),
    "triplet_swap": (T.TripletMarginLoss, {"swap": True, "margin": 2.0}, triplets(6, 5)),
    "triplet_p": (T.TripletMarginLoss, {"p": 1.0, "eps": 0.1}, triplets(3, 6, 5)),
    "triplet_distance": (T.TripletMarginWithDistanceLoss, {"swap": True}, triplets(6, 5)),
    "triplet_given": (
        T.TripletMarginWithDistanceLoss,
        {"distance_function": T.PairwiseDistance(3.0, 0.01), "margin": 0.5},
        triplets(6, 5),
    ),
    "ce": (T.CrossEntropyLoss, {}, classes(6, 5)),
    "ce_single": (T.CrossEntropyLoss, {"weight": WEIGHT, **SMOOTH}, classes(5)),
    "ce_volume": (T.CrossEntropyLoss, {}, classes(2, 5, 3, 2, 4)),
    "ce_ignored": (T.CrossEntropyLoss, {"ignore_index": 3}, in_range(20, 5)),
    "ce_all": (T.CrossEntropyLoss, {"weight": WEIGHT, **SMOOTH}, classes(2, 5, 3, 4)),
    "ce_smooth": (T.CrossEntropyLoss, SMOOTH, classes(6, 5)),
    "ce_nothing": (
        T.CrossEntropyLoss,
        SMOOTH,
        lambda: (torch.randn(2, 5), torch.tensor([-100, -100])),
    ),
    "ce_soft": (T.CrossEntropyLoss, {}, distributions(6, 5)),
    "ce_soft_single": (T.CrossEntropyLoss, SMOOTH, distributions(5)),
    "ce_soft_all": (T.CrossEntropyLoss, {"weight": WEIGHT, **SMOOTH}, distributions(2, 5, 3, 4)),
    "nll": (T.NLLLoss, {}, classes(6, 5)),
    "nll_single": (T.NLLLoss, {}, classes(5)),
    "nll_all": (T.NLLLoss, {"weight": WEIGHT, "ignore_index": 1}, in_range(20, 5)),
    "nll_volume": (T.NLLLoss, {"weight": WEIGHT}, classes(2, 5, 3, 4)),
    "bce": (T.BCELoss, {}, probabilities(4, 5)),
    "bce_weight": (T.BCELoss, {"weight": WEIGHT}, probabilities(4, 5)),
    "bce_logits": (T.BCEWithLogitsLoss, {}, logits(4, 5)),
    "bce_logits_weight": (T.BCEWithLogitsLoss, {"weight": torch.rand(4, 1)}, logits(4, 5)),
    "bce_logits_all": (
        T.BCEWithLogitsLoss,
        {"weight": torch.rand(3, 5), "pos_weight": WEIGHT * 2},
        logits(4, 3, 5),
    ),
    "linear": (lambda **k: T.LinearCrossEntropyLoss(3, 5, **k), {}, in_range(6, 3)),
    "linear_all": (
        lambda **k: T.LinearCrossEntropyLoss(3, 5, bias=True, weight=WEIGHT, **k),
        {"ignore_index": 1, **SMOOTH},
        lambda: (torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 4, 1])),
    ),
    "linear_out": (
        lambda **k: T.LinearCrossEntropyLoss(3, 5, out_features=(4, 2), bias=True, **k),
        {},
        lambda: (torch.randn(6, 3), torch.randint(0, 5, (6, 4, 2))),
    ),
    "linear_same_sizes": (
        lambda **k: T.LinearCrossEntropyLoss(3, 5, out_features=(2, 2), **k),
        {},
        lambda: (torch.randn(6, 3), torch.randn(6, 5, 2, 2).softmax(1)),
    ),
}
# PyTorch has no kernel for these in half precision on the CPU.
NO_HALF = {name for name in CASES if name.startswith(("multi_margin", "multilabel_margin"))}


def build(name: str, reduction: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    source, arguments, inputs = CASES[name]
    return source(reduction=reduction, **arguments), inputs()


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(
    assert_layer_parity: Callable[..., None], name: str, reduction: str
) -> None:
    module, inputs = build(name, reduction)
    assert_layer_parity(module, *inputs, gradients=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", sorted(CASES.keys() - NO_HALF))
def test_half_precision(
    assert_layer_parity: Callable[..., None], name: str, dtype: torch.dtype
) -> None:
    module, inputs = build(name, "sum")
    assert_layer_parity(module, *inputs, dtype=dtype)


def test_mean_where_weights_add_up_to_nothing(assert_layer_parity: Callable[..., None]) -> None:
    target = torch.tensor([2, -100])
    assert_layer_parity(T.CrossEntropyLoss(WEIGHT, **SMOOTH), torch.randn(2, 5), target)


def test_batchmean(assert_layer_parity: Callable[..., None]) -> None:
    module = T.KLDivLoss(reduction="batchmean")
    assert_layer_parity(module, *log_probabilities(4, 5, 3)(), gradients=True)
    assert_layer_parity(module, *log_probabilities()(), gradients=True)


@pytest.mark.filterwarnings("ignore:.NLLLoss2d. has been deprecated")
def test_old_name(assert_layer_parity: Callable[..., None]) -> None:
    assert_layer_parity(T.NLLLoss2d(), *classes(2, 5, 3, 4)(), gradients=True)


@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated")
def test_old_arguments(assert_layer_parity: Callable[..., None]) -> None:
    assert_layer_parity(T.MSELoss(size_average=False), *values(4, 5)())
    assert_layer_parity(T.MSELoss(reduce=False), *values(4, 5)())


def test_complex_distance(assert_layer_parity: Callable[..., None]) -> None:
    x, y = (torch.randn(4, 5, dtype=torch.complex64) for _ in range(2))
    got = build_layer(T.L1Loss())(mx.array(x), mx.array(y))
    assert got.dtype == mx.float32
    assert got.item() == pytest.approx((x - y).abs().mean().item(), rel=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_adaptive_softmax(assert_layer_parity: Callable[..., None], bias: bool) -> None:
    module = T.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 9, 15], div_value=2.0, head_bias=bias)
    target = torch.randperm(20)
    assert_layer_parity(module, torch.randn(20, 8), target, gradients=True)
    assert_layer_parity(module, torch.randn(8), target[0])
    assert_layer_parity(module, torch.randn(20, 8), target, dtype=torch.bfloat16)


def test_weights_do_not_train() -> None:
    module = T.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=WEIGHT)
    layer = build_layer(module)
    layer.unfreeze()
    assert layer.trainable_parameters() == {}
    assert set(layer.parameters()) == {"weight", "pos_weight"}
    linear = build_layer(T.LinearCrossEntropyLoss(3, 5, weight=WEIGHT))
    assert set(linear.trainable_parameters()) == {"linear"}


@pytest.mark.parametrize(
    ("module", "target", "args", "kwargs"),
    [
        (T.CrossEntropyLoss(), layers.CrossEntropyLoss, (), {}),
        (
            T.CrossEntropyLoss(torch.ones(2), label_smoothing=0.1, reduction="sum"),
            layers.CrossEntropyLoss,
            (),
            {"weight_shape": (2,), "label_smoothing": 0.1, "reduction": "sum"},
        ),
        (T.BCELoss(torch.ones(2, 2)), layers.BCELoss, (), {"weight_shape": (2, 2)}),
        (
            T.LinearCrossEntropyLoss(3, 5, out_features=(2, 2)),
            layers.LinearCrossEntropyLoss,
            (3, 5),
            {"out_features": (2, 2)},
        ),
    ],
    ids=["plain", "all", "square", "linear"],
)
def test_spec(
    module: torch.nn.Module, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    spec = spec_for(module)
    assert (spec.target, spec.args, dict(spec.kwargs)) == (target, args, kwargs)
    assert spec.axes is Axes.LOGICAL


LEFT_OUT = {"size_average", "reduce", "reduction", "weight", "pos_weight", "distance_function"}
SETTINGS = [
    (source, name, value)
    for source in vars(T).values()
    if isinstance(source, type) and source.__module__ == "torch.nn.modules.loss" and source in RULES
    for name, parameter in inspect.signature(source).parameters.items()
    if isinstance(default := parameter.default, int | float) and name not in LEFT_OUT
    for value in ([not default] if isinstance(default, bool) else [default + 1, default * 2])
    if value != default and value >= 0 and name != "blank"
]


@pytest.mark.parametrize(
    ("source", "name", "value"), SETTINGS, ids=lambda value: getattr(value, "__name__", value)
)
def test_every_setting_reaches_the_layer(source: Any, name: str, value: Any) -> None:
    """A wrong default would leave a setting out just where it has that value."""
    if name == "p":
        value = int(value) if source is T.MultiMarginLoss else value
    given = {"in_features": 3, "num_classes": 5, "n_classes": 9, "cutoffs": [4]}
    parameters = inspect.signature(source).parameters
    needed = {k: given[k] for k, p in parameters.items() if p.default is p.empty and k in given}
    spec = spec_for(source(**needed, **{name: value}))
    assert spec.kwargs[name] == value
    assert name not in spec_for(source(**needed)).kwargs


def exchanged() -> torch.nn.Module:
    module = T.AdaptiveLogSoftmaxWithLoss(8, 20, [4])
    module.head = T.Linear(8, 5)
    return module


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (T.L1Loss(reduction="median"), "reduction='median' is not one of"),
        (T.SmoothL1Loss(beta=-1.0), "beta=-1.0 must not be negative"),
        (T.HuberLoss(delta=0.0), "delta=0.0 must be positive"),
        (T.CrossEntropyLoss(label_smoothing=1.5), "label_smoothing=1.5 must be from 0 to 1"),
        (
            T.TripletMarginWithDistanceLoss(distance_function=torch.cdist),
            "is not PairwiseDistance",
        ),
        (
            T.TripletMarginWithDistanceLoss(distance_function=T.PairwiseDistance(keepdim=True)),
            "without keepdim",
        ),
        (exchanged(), "not as its constructor builds it"),
    ],
    ids=["reduction", "beta", "delta", "smoothing", "function", "keepdim", "exchanged"],
)
def test_refuses(module: torch.nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        build_layer(module)
