"""What `build_layer` serves, what it refuses, and that no tensor is lost or misplaced unnoticed."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from torch.nn.utils import prune

from mlxport.converter.errors import StateDictError, UnsupportedError
from mlxport.converter.plan.weight_plan import Entry
from mlxport.converter.rules import registry
from mlxport.converter.rules.build import build_layer, spec_for
from mlxport.converter.rules.registry import RULES, LayerSpec, Refusal, Rule, rule, rule_for


class OwnForward(torch.nn.Conv3d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class OwnInnerForward(torch.nn.Conv3d):
    def _conv_forward(self, *args: torch.Tensor) -> torch.Tensor:
        return super()._conv_forward(*args) * 2


class OwnWeight(torch.nn.Conv3d):
    @property
    def stride(self) -> tuple[int, ...]:
        return (1, 1, 1)

    @stride.setter
    def stride(self, value: tuple[int, ...]) -> None:
        pass


class Harmless(torch.nn.Conv3d):
    """Another way to be built, nothing else."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3)

    def reset_parameters(self) -> None:
        torch.nn.init.ones_(self.weight)
        torch.nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return "harmless"


@pytest.mark.parametrize("cls", [OwnForward, OwnInnerForward, OwnWeight])
def test_subclass_that_computes_otherwise_is_not_served(cls: type) -> None:
    with pytest.raises(UnsupportedError, match=f"{cls.__name__} .* as a layer: no rule"):
        build_layer(cls(2, 2, 3))


def test_harmless_subclass_is_served(assert_layer_parity: Callable[..., None]) -> None:
    module = Harmless(2)
    assert rule_for(module) is RULES[torch.nn.Conv3d]
    assert_layer_parity(module, torch.randn(1, 2, 4, 4, 4))


def hooked() -> torch.nn.Module:
    module = torch.nn.Conv3d(2, 2, 3)
    module.register_forward_hook(lambda module, args, result: result * 2)
    return module


def pruned() -> torch.nn.Module:
    return prune.l1_unstructured(torch.nn.Conv3d(2, 2, 3), "weight", 0.5)


def patched(name: str) -> Callable[[], torch.nn.Module]:
    def build() -> torch.nn.Module:
        module = torch.nn.Conv3d(2, 2, 3)
        setattr(module, name, lambda *args: args[0] * 2)
        return module

    return build


@pytest.mark.parametrize(
    ("build", "message"),
    [
        pytest.param(hooked, "a forward hook is registered on it", id="hook"),
        pytest.param(pruned, "L1Unstructured", id="pruned"),
        pytest.param(patched("forward"), "forward was replaced", id="forward"),
        pytest.param(patched("_conv_forward"), "_conv_forward was replaced", id="inner_forward"),
    ],
)
def test_module_changed_after_construction_is_refused(
    build: Callable[[], torch.nn.Module], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build_layer(build())


def test_no_rule_names_the_class_and_the_next_step() -> None:
    with pytest.raises(
        UnsupportedError, match=r"Own \(.*\) cannot .*: no rule.*`mlxport layers` lists"
    ):
        build_layer(type("Own", (torch.nn.Module,), {})())


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_kept(training: bool) -> None:
    assert build_layer(torch.nn.BatchNorm2d(4).train(training)).training is training


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex64], ids=str
)
def test_weights_keep_their_bits(dtype: torch.dtype) -> None:
    module = torch.nn.Linear(3, 4, dtype=dtype)
    weight = build_layer(module).weight
    assert str(weight.dtype).endswith(str(dtype).removeprefix("torch."))
    bits = weight.view(mx.uint8) if dtype != torch.complex64 else mx.real(weight).view(mx.uint8)
    expected = module.weight.detach()
    expected = torch.view_as_real(expected)[..., 0] if dtype.is_complex else expected
    assert np.array_equal(bits, expected.contiguous().view(torch.uint8).numpy())


def test_non_contiguous_weight() -> None:
    module = torch.nn.Linear(3, 4)
    module.weight = torch.nn.Parameter(torch.randn(3, 4).t())
    assert np.array_equal(build_layer(module).weight, module.weight.detach().numpy())


def test_float64_is_refused_by_name_never_rounded() -> None:
    with pytest.raises(StateDictError, match=r"(?s)weight.*F64.*bias.*F64"):
        build_layer(torch.nn.Linear(3, 4).double())


def test_tensors_without_values_are_all_listed() -> None:
    with pytest.raises(StateDictError, match=r"(?s)weight: .*meta device.*bias: .*meta device"):
        build_layer(torch.nn.Linear(3, 4, device="meta"))


class Sample(torch.nn.Linear):
    """A layer whose rule the tests below change."""


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> Callable[[LayerSpec | Refusal], None]:
    """Make a spec (or a refusal) the answer of `Sample`'s rule."""

    def answer(value: LayerSpec | Refusal) -> None:
        def build(module: torch.nn.Module) -> LayerSpec:
            if isinstance(value, Refusal):
                raise value
            return value

        monkeypatch.setitem(RULES, Sample, Rule(Sample, build, frozenset(), True, "", ""))

    return answer


WEIGHT, BIAS = Entry(("weight",), ("weight",)), Entry(("bias",), ("bias",))


def test_refusal_names_class_reason_and_module(
    spec: Callable[[LayerSpec | Refusal], None],
) -> None:
    spec(Refusal("it is too blue"))
    with pytest.raises(UnsupportedError, match=r"Sample: it is too blue \(module: Sample\(in_"):
        spec_for(Sample(3, 4))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(
            LayerSpec(nn.Linear, (3, 4), {"bias": False}, (WEIGHT,)), "unexpected  bias", id="left"
        ),
        pytest.param(
            LayerSpec(nn.Linear, (3, 4), entries=(WEIGHT, BIAS, Entry(("scale",), ("scale",)))),
            "missing     scale",
            id="missing",
        ),
        pytest.param(
            LayerSpec(nn.Linear, (5, 6), entries=(WEIGHT, BIAS)),
            r"(?s)weight: expected \(6, 5\), got \(4, 3\).*bias: expected \(6,\), got \(4,\)",
            id="shapes",
        ),
        pytest.param(
            LayerSpec(nn.Linear, (3, 4), {"bias": False}, (WEIGHT, BIAS)),
            "bias: not in the layer",
            id="no_place",
        ),
        pytest.param(
            LayerSpec(nn.Linear, (3, 4), entries=(WEIGHT,), ignored={"bias": "why not"}),
            "bias: no value",
            id="no_value",
        ),
    ],
)
def test_plan_that_does_not_fit_is_an_error(
    spec: Callable[[LayerSpec | Refusal], None], answer: LayerSpec, message: str
) -> None:
    spec(answer)
    with pytest.raises(StateDictError, match=message):
        build_layer(Sample(3, 4))


def test_a_class_has_one_rule() -> None:
    with pytest.raises(ValueError, match="Linear already has a rule"):
        rule(torch.nn.Linear, target="")(lambda module: LayerSpec(nn.Linear))


CAPTURED = {
    "Linear": (lambda: torch.nn.Linear(4, 3), (2, 4)),
    "Conv1d": (lambda: torch.nn.Conv1d(4, 4, 3), (2, 4, 8)),
    "Conv2d": (lambda: torch.nn.Conv2d(4, 4, 3), (2, 4, 8, 8)),
    "Conv2d_same": (lambda: torch.nn.Conv2d(4, 4, 3, padding="same"), (2, 4, 8, 8)),
    "Conv3d": (lambda: torch.nn.Conv3d(4, 4, 3), (2, 4, 8, 8, 8)),
    "Conv3d_unbatched": (lambda: torch.nn.Conv3d(4, 4, 3), (4, 8, 8, 8)),
    "Conv3d_circular": (
        lambda: torch.nn.Conv3d(4, 4, 3, padding=1, padding_mode="circular"),
        (2, 4, 8, 8, 8),
    ),
    "ConvTranspose1d": (lambda: torch.nn.ConvTranspose1d(4, 4, 3), (2, 4, 8)),
    "ConvTranspose2d": (lambda: torch.nn.ConvTranspose2d(4, 4, 3), (2, 4, 8, 8)),
    "ConvTranspose3d": (lambda: torch.nn.ConvTranspose3d(4, 4, 3), (2, 4, 8, 8, 8)),
    "BatchNorm1d": (lambda: torch.nn.BatchNorm1d(4), (2, 4)),
    "BatchNorm3d_eval": (lambda: torch.nn.BatchNorm3d(4).eval(), (2, 4, 3, 3, 3)),
    "SyncBatchNorm": (lambda: torch.nn.SyncBatchNorm(4).eval(), (2, 4, 3, 3, 3)),
    "InstanceNorm3d": (lambda: torch.nn.InstanceNorm3d(4), (2, 4, 3, 3, 3)),
    "InstanceNorm3d_unbatched": (lambda: torch.nn.InstanceNorm3d(4), (4, 3, 3, 3)),
    "GroupNorm": (lambda: torch.nn.GroupNorm(2, 4), (2, 4, 3)),
    "LayerNorm": (lambda: torch.nn.LayerNorm(4), (2, 4)),
    "RMSNorm": (lambda: torch.nn.RMSNorm(4), (2, 4)),
    "LocalResponseNorm": (lambda: torch.nn.LocalResponseNorm(3), (2, 4, 3)),
    "LocalResponseNorm_image": (lambda: torch.nn.LocalResponseNorm(3), (2, 4, 3, 3)),
    "CrossMapLRN2d": (lambda: torch.nn.CrossMapLRN2d(3), (2, 4, 3, 3)),
    "Identity": (torch.nn.Identity, (2, 4)),
}


@pytest.mark.parametrize(("build", "shape"), CAPTURED.values(), ids=CAPTURED)
def test_rule_knows_the_ops_its_class_is_captured_as(
    build: Callable[[], torch.nn.Module], shape: tuple[int, ...]
) -> None:
    module = build()
    graph = torch.export.export(module, (torch.randn(shape),)).graph
    captured = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert captured <= registry.rule_for(module).ops  # type: ignore[union-attr]
