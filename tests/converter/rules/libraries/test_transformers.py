"""transformers' norms become MLX layers that compute the same."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn
import pytest
import torch

from mlxport import layers
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.registry import LIBRARY_RULES
from mlxport.converter.rules.spec import spec_for

MODELS = "transformers.models"
CONVNEXT = f"{MODELS}.convnext.modeling_convnext.ConvNextLayerNorm"
CONVNEXT_V2 = f"{MODELS}.convnextv2.modeling_convnextv2.ConvNextV2LayerNorm"
LLAMA = f"{MODELS}.llama.modeling_llama.LlamaRMSNorm"
T5 = f"{MODELS}.t5.modeling_t5.T5LayerNorm"
UNIT_OFFSET_NORMS = [
    name for name, rule in LIBRARY_RULES.items() if rule.target == "layers.UnitOffsetRMSNorm"
]
RMS_NORMS = [
    name
    for name in LIBRARY_RULES
    if name.startswith(MODELS) and "convnext" not in name and name not in UNIT_OFFSET_NORMS
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("name", RMS_NORMS, ids=lambda name: name.rpartition(".")[2])
def test_every_rms_norm_agrees(assert_layer_parity: Any, library_layer: Any, name: str) -> None:
    module = library_layer(name, 16, eps=1e-6)
    assert spec_for(module).target is nn.RMSNorm
    assert_layer_parity(module, torch.randn(2, 5, 16) * 3 + 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("eps", [1e-6, 1e-2, 0.0])
@pytest.mark.parametrize("name", [LLAMA, T5], ids=["llama", "t5"])
def test_rms_norms_agree_in_every_dtype(
    assert_layer_parity: Any, library_layer: Any, name: str, eps: float, dtype: torch.dtype
) -> None:
    module = library_layer(name, 16, eps=eps)
    assert spec_for(module).target is (nn.RMSNorm if eps else layers.RMSNorm)
    assert_layer_parity(module, torch.randn(2, 5, 16), dtype=dtype)


@pytest.mark.parametrize("name", [LLAMA, T5], ids=["llama", "t5"])
def test_gradients_of_rms_norms_agree(
    assert_layer_parity: Any, library_layer: Any, name: str
) -> None:
    module = library_layer(name, 16)
    assert_layer_parity(module, torch.randn(2, 5, 16), train=True, gradients=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("name", [CONVNEXT, CONVNEXT_V2], ids=["v1", "v2"])
def test_layer_norms_of_both_formats_agree(
    assert_layer_parity: Any,
    library_layer: Any,
    name: str,
    data_format: str,
    dtype: torch.dtype,
) -> None:
    module = library_layer(name, 6, eps=1e-6, data_format=data_format)
    shape = (2, 6, 4, 5) if data_format == "channels_first" else (2, 4, 5, 6)
    assert_layer_parity(module, torch.randn(shape), dtype=dtype)


def test_gradients_of_a_layer_norm_agree(assert_layer_parity: Any, library_layer: Any) -> None:
    module = library_layer(CONVNEXT, 6, data_format="channels_first")
    assert_layer_parity(module, torch.randn(2, 6, 4, 5), train=True, gradients=True)


def test_a_format_that_is_not_known_is_refused(library_layer: Any) -> None:
    module = library_layer(CONVNEXT, 6)
    module.data_format = "channels_somewhere"
    with pytest.raises(UnsupportedError, match="channels_somewhere"):
        spec_for(module)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", UNIT_OFFSET_NORMS, ids=lambda name: name.rpartition(".")[2])
def test_norms_that_scale_by_one_plus_the_weight_agree(
    assert_layer_parity: Any, library_layer: Any, name: str, dtype: torch.dtype
) -> None:
    module = library_layer(name, 16, eps=1e-5)
    torch.nn.init.normal_(module.weight)
    assert spec_for(module).target is layers.UnitOffsetRMSNorm
    assert_layer_parity(module, torch.randn(2, 5, 16) * 3 + 1, dtype=dtype)


def test_gradients_of_a_unit_offset_norm_agree(
    assert_layer_parity: Any, library_layer: Any
) -> None:
    module = library_layer(UNIT_OFFSET_NORMS[0], 16)
    assert_layer_parity(module, torch.randn(2, 5, 16), train=True, gradients=True)


def test_a_unit_offset_norm_without_eps_is_refused(library_layer: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"eps=0\.0"):
        spec_for(library_layer(UNIT_OFFSET_NORMS[0], 16, eps=0.0))
