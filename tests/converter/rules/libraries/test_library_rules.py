"""Rules found by a class's qualified name: who is served, who is not, and what they leave alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import mlx.nn as mlx_nn
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules import registry
from mlxport.converter.rules.normalization import rms_norm_spec
from mlxport.converter.rules.registry import LIBRARY_RULES, LayerSpec, library_rule, rule_for


class Scale(nn.Module):
    """RMS norm as a library may have it."""

    def __init__(self, dims: int = 6):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(dims) + 0.5)
        self.epsilon = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon)


class Renamed(Scale):
    """Overrides nothing that computes."""


class Shifted(Scale):
    """Computes something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


TWICE = torch.randn(2, 6)


@pytest.fixture(autouse=True)
def scale_rule() -> Iterator[Any]:
    """Register a rule for Scale by its name; take it out again."""
    rules, library_rules = dict(registry.RULES), dict(LIBRARY_RULES)

    @library_rule(registry.qualified_name(Scale), target="mlx.nn.RMSNorm")
    def scale(module: Any) -> LayerSpec:
        return rms_norm_spec(tuple(module.weight.shape), module.epsilon, affine=True)

    yield scale
    for kept, now in ((rules, registry.RULES), (library_rules, LIBRARY_RULES)):
        now.clear()
        now.update(kept)


@pytest.mark.parametrize("cls", [Scale, Renamed])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_class_is_served_by_its_name(
    assert_layer_parity: Any, cls: type[Scale], gradients: bool
) -> None:
    assert_layer_parity(cls(), torch.randn(2, 3, 6), gradients=gradients)


def test_a_subclass_that_computes_something_else_is_not_served() -> None:
    assert rule_for(Shifted()) is None
    with pytest.raises(UnsupportedError, match="no rule is registered"):
        mlxport.convert_layer(Shifted())


def test_a_class_with_other_attributes_is_refused() -> None:
    module = Scale()
    del module.epsilon
    with pytest.raises(UnsupportedError, match=r"not the one this rule was written for.*epsilon"):
        mlxport.convert_layer(module)


def test_a_name_has_one_rule(scale_rule: Any) -> None:
    with pytest.raises(ValueError, match=r"Scale already has a rule"):
        library_rule(registry.qualified_name(Scale), target="")(scale_rule)


def test_a_rule_of_the_user_comes_first() -> None:
    def users(module: Scale) -> LayerSpec:
        raise mlxport.Refusal("the user's")

    mlxport.register_rule(Scale)(users)
    with pytest.raises(UnsupportedError, match="the user's"):
        mlxport.convert_layer(Scale())


def test_whole_models_go_by_what_the_class_computes() -> None:
    result = mlxport.convert(nn.Sequential(nn.Linear(6, 6), Scale()).eval(), TWICE)
    assert result.report.passed
    assert isinstance(result.model.layers[1], mlx_nn.RMSNorm)


def test_containers_hold_such_layers() -> None:
    chain = mlxport.convert_layer(nn.Sequential(nn.Linear(6, 6), Scale()))
    assert [type(layer).__name__ for layer in chain.layers] == ["Linear", "RMSNorm"]


def test_no_library_is_imported() -> None:
    script = (
        "import sys, mlxport.converter.rules\n"
        "found = {'timm', 'transformers'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
