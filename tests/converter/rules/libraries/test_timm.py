"""timm's norms become MLX layers that compute the same."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn
import pytest
import torch

from mlxport import layers
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.registry import LIBRARY_RULES, rule_for
from mlxport.converter.rules.spec import spec_for

LAST, IMAGE = (2, 5, 6), (2, 6, 4, 5)
# class -> shape of its input, arguments
CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "layer_norm": ("LayerNorm", LAST, {}),
    "layer_norm_of_an_eps": ("LayerNorm", LAST, {"eps": 1e-3}),
    "layer_norm_plain": ("LayerNorm", LAST, {"affine": False}),
    "layer_norm_2d": ("LayerNorm2d", IMAGE, {}),
    "layer_norm_2d_plain": ("LayerNorm2d", IMAGE, {"affine": False}),
    "layer_norm_2d_without_eps": ("LayerNorm2d", IMAGE, {"eps": 0.0}),
    "group_norm": ("GroupNorm", IMAGE, {"num_groups": 3}),
    "group_norm_1": ("GroupNorm1", IMAGE, {}),
    "group_norm_1_of_tokens": ("GroupNorm1", (2, 6, 5), {}),
    "rms_norm": ("RmsNorm", LAST, {}),
    "rms_norm_plain": ("RmsNorm", LAST, {"affine": False}),
    "rms_norm_2d": ("RmsNorm2d", IMAGE, {}),
    "rms_norm_2d_plain": ("RmsNorm2d", IMAGE, {"affine": False}),
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("cls", "shape", "arguments"), CASES.values(), ids=CASES)
def test_outputs_agree(
    assert_layer_parity: Any,
    library_layer: Any,
    cls: str,
    shape: tuple[int, ...],
    arguments: dict[str, Any],
    dtype: torch.dtype,
) -> None:
    module = library_layer(f"timm.layers.norm.{cls}", 6, **arguments)
    assert_layer_parity(module, torch.randn(shape) * 3 + 1, dtype=dtype)


@pytest.mark.parametrize(("cls", "shape", "arguments"), CASES.values(), ids=CASES)
def test_gradients_agree(
    assert_layer_parity: Any,
    library_layer: Any,
    cls: str,
    shape: tuple[int, ...],
    arguments: dict[str, Any],
) -> None:
    module = library_layer(f"timm.layers.norm.{cls}", 6, **arguments)
    assert_layer_parity(module, torch.randn(shape), train=True, gradients=True)


def test_every_class_with_a_rule_is_tried() -> None:
    named = {name for name in LIBRARY_RULES if name.startswith("timm.")}
    assert named == {f"timm.layers.norm.{cls}" for cls, _, _ in CASES.values()}


@pytest.mark.parametrize(
    ("cls", "target"),
    {
        "LayerNorm2d": nn.LayerNorm,
        "RmsNorm2d": nn.RMSNorm,
        "RmsNorm": nn.RMSNorm,
        "GroupNorm1": layers.GroupNorm,
    }.items(),
)
def test_a_layer_of_mlx_is_taken_where_it_serves(library_layer: Any, cls: str, target: Any) -> None:
    assert spec_for(library_layer(f"timm.layers.norm.{cls}", 6)).target is target


@pytest.mark.parametrize("cls", ["LayerNormExp2d", "SimpleNorm"])
def test_other_norms_of_timm_have_no_rule(library_layer: Any, cls: str) -> None:
    module = library_layer(f"timm.layers.norm.{cls}", 6)
    assert rule_for(module) is None
    with pytest.raises(UnsupportedError, match="no rule is registered"):
        spec_for(module)
