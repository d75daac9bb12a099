"""The layers of `layers.transformer_layers` against torch's, which compute as in training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxport import layers
from mlxport.layers.attention.transformer_layers import ACTIVATIONS

# Masks of two kinds together are deprecated in torch, and work.
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched")
FEATURES, HEADS, HIDDEN = 8, 2, 12
KINDS = {
    "encoder": (torch.nn.TransformerEncoderLayer, layers.TransformerEncoderLayer),
    "decoder": (torch.nn.TransformerDecoderLayer, layers.TransformerDecoderLayer),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def pair(kind: str, **arguments: Any) -> tuple[Any, Any]:
    """A module with different values in every parameter, and the layer of equal arguments."""
    arguments = {"dropout": 0.0, "dim_feedforward": HIDDEN, **arguments}
    source, target = KINDS[kind]
    module = source(FEATURES, HEADS, **arguments)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return module, target(FEATURES, HEADS, **arguments)


def inputs(kind: str, shape: tuple[int, ...] = (4, 3), axis: int = 0) -> list[torch.Tensor]:
    """The source, or a target of this shape and a memory one position longer on this axis."""
    if kind == "encoder":
        return [torch.randn(*shape, FEATURES)]
    longer = tuple(n + (i == axis) for i, n in enumerate(shape))
    return [torch.randn(*shape, FEATURES), torch.randn(*longer, FEATURES)]


ARGUMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm_first": {"norm_first": True},
    "gelu": {"activation": "gelu"},
    "no_bias": {"bias": False},
    "no_bias_norm_first": {"bias": False, "norm_first": True},
    "eps": {"layer_norm_eps": 0.5},
    "eps_0": {"layer_norm_eps": 0.0},
    "wide": {"dim_feedforward": 40},
}


@each_kind
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("layout", ["sequence_first", "batch_first", "no_batch"])
def test_every_constructor_argument(
    assert_module_parity: Callable[..., None], layout: str, arguments: dict[str, Any], kind: str
) -> None:
    first = layout == "batch_first"
    module, layer = pair(kind, batch_first=first, **arguments)
    shape = (4,) if layout == "no_batch" else (4, 3)
    assert_module_parity(module, layer, *inputs(kind, shape, int(first)))


@each_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("norm_first", [True, False], ids=["norm_first", "norm_last"])
def test_half_precision(
    assert_module_parity: Callable[..., None], norm_first: bool, dtype: torch.dtype, kind: str
) -> None:
    module, layer = pair(kind, norm_first=norm_first, activation="gelu")
    assert_module_parity(module.to(dtype), layer, *(x.to(dtype) for x in inputs(kind)))


FUNCTIONS = {"gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "log_sigmoid": F.logsigmoid}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_by_its_name(assert_module_parity: Callable[..., None], name: str) -> None:
    function = FUNCTIONS.get(name) or getattr(F, name)
    module, _ = pair("encoder", activation=function)
    layer = layers.TransformerEncoderLayer(FEATURES, HEADS, HIDDEN, 0.0, name)
    assert_module_parity(module, layer, 3 * torch.randn(4, 3, FEATURES))


def test_an_activation_of_ones_own(assert_module_parity: Callable[..., None]) -> None:
    module, _ = pair("decoder", activation=torch.nn.Softmax(-1))
    layer = layers.TransformerDecoderLayer(
        FEATURES, HEADS, HIDDEN, activation=lambda x: mx.softmax(x, axis=-1)
    )
    assert_module_parity(module.eval(), layer, *inputs("decoder"))


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any], list[torch.Tensor], dict[str, Any]]:
    kind = draw(st.sampled_from(list(KINDS)))
    batch, first = draw(st.sampled_from([(None, False), (1, True), (2, False), (3, True)]))
    length, longer = draw(st.tuples(*[st.integers(2, 4)] * 2))
    torch.manual_seed(draw(st.integers(0, 1000)))

    def sequence(n: int) -> torch.Tensor:
        lead = (n,) if batch is None else (batch, n) if first else (n, batch)
        return torch.randn(*lead, FEATURES)

    def mask(*shape: int) -> torch.Tensor | None:
        masked = torch.rand(shape) < draw(st.sampled_from([0.0, 0.4, 1.0]))
        floating = torch.randn(shape).masked_fill(masked, -torch.inf)
        return draw(st.sampled_from([None, masked, floating]))

    def masks(name: str, queries: int, keys: int) -> dict[str, Any]:
        lead = ((batch or 1) * HEADS,) if draw(st.booleans()) else ()
        return {
            f"{name}_mask": mask(*lead, queries, keys),
            f"{name}_key_padding_mask": mask(*([batch] if batch else []), keys),
        }

    def hint(name: str, given: torch.Tensor | None) -> dict[str, bool]:
        return {name: given is not None and draw(st.booleans())}

    if kind == "encoder":
        tensors, keywords = [sequence(length)], masks("src", length, length)
        keywords |= hint("is_causal", keywords["src_mask"])
    else:
        tensors = [sequence(length), sequence(longer)]
        keywords = masks("tgt", length, length) | masks("memory", length, longer)
        keywords |= hint("tgt_is_causal", keywords["tgt_mask"])
        keywords |= hint("memory_is_causal", keywords["memory_mask"])
    arguments = {
        "batch_first": first,
        "norm_first": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "activation": draw(st.sampled_from(["relu", "gelu"])),
        "layer_norm_eps": draw(st.sampled_from([1e-5, 0.1])),
    }
    return kind, arguments, tensors, keywords


@settings(max_examples=120)
@given(calls())
def test_everything_at_once(
    assert_module_parity: Callable[..., None],
    call: tuple[str, dict[str, Any], list[torch.Tensor], dict[str, Any]],
) -> None:
    kind, arguments, tensors, keywords = call
    module, layer = pair(kind, **arguments)
    assert_module_parity(module, layer, *tensors, **keywords)


@each_kind
def test_masks_by_position(assert_module_parity: Callable[..., None], kind: str) -> None:
    module, layer = pair(kind)
    square, padding = torch.randn(4, 4), torch.randn(3, 4)
    masks = [square, padding]
    if kind == "decoder":
        masks = [square, torch.randn(4, 5), padding, torch.randn(3, 5)]
    assert_module_parity(module, layer, *inputs(kind), *masks)


class _Halve(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


@each_kind
@pytest.mark.parametrize("norm_first", [True, False], ids=["norm_first", "norm_last"])
def test_dropout_stands_where_torchs_does(
    assert_module_parity: Callable[..., None], norm_first: bool, kind: str
) -> None:
    module, layer = pair(kind, norm_first=norm_first)
    for name, child in list(module.named_children()):
        if isinstance(child, torch.nn.Dropout):
            setattr(module, name, _Halve())
    layer.dropout = lambda x: x / 2
    assert_module_parity(module, layer, *inputs(kind))


@each_kind
def test_dropout_is_active_in_training_only(
    assert_module_parity: Callable[..., None], kind: str
) -> None:
    module, layer = pair(kind, dropout=0.5)
    tensors = inputs(kind)
    assert_module_parity(module.eval(), layer, *tensors)
    layer.train()
    arrays = [mx.array(x.numpy()) for x in tensors]
    assert not mx.allclose(layer(*arrays), layer(*arrays)).item()
    assert layer.self_attn.dropout == layer.get("multihead_attn", layer.self_attn).dropout == 0.5


REFUSED = {
    "unknown_activation": ({"activation": "swish"}, "one of relu, gelu"),
    "heads_not_dividing": ({"nhead": 3}, "multiple of num_heads=3"),
    "dropout_above_1": ({"dropout": 1.5}, "dropout"),
}


@each_kind
@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_constructors_refuse_alike(arguments: dict[str, Any], message: str, kind: str) -> None:
    arguments = {"d_model": FEATURES, "nhead": HEADS, **arguments}
    source, target = KINDS[kind]
    with pytest.raises((ValueError, AssertionError, RuntimeError)):
        source(**arguments)
    with pytest.raises(ValueError, match=message):
        target(**arguments)


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "encoder_hint_without_mask": ("encoder", {"is_causal": True}),
    "encoder_integer_mask": ("encoder", {"src_mask": torch.ones(4, 4).int()}),
    "encoder_integer_padding": ("encoder", {"src_key_padding_mask": torch.ones(3, 4).int()}),
    "encoder_padding_transposed": ("encoder", {"src_key_padding_mask": torch.ones(4, 3) > 0}),
    "decoder_hint_without_mask": ("decoder", {"tgt_is_causal": True}),
    "decoder_memory_hint_without_mask": ("decoder", {"memory_is_causal": True}),
    "decoder_memory_mask_transposed": ("decoder", {"memory_mask": torch.ones(5, 4) > 0}),
    "decoder_memory_padding": ("decoder", {"memory_key_padding_mask": torch.ones(3, 4) > 0}),
}


@pytest.mark.parametrize(("kind", "keywords"), CALLS.values(), ids=CALLS)
def test_calls_that_torch_refuses_are_refused(kind: str, keywords: dict[str, Any]) -> None:
    module, layer = pair(kind)
    tensors = inputs(kind)
    with pytest.raises((AssertionError, RuntimeError)):
        module(*tensors, **keywords)
    arrays = {k: mx.array(v.numpy()) if not isinstance(v, bool) else v for k, v in keywords.items()}
    with pytest.raises(ValueError, match="MultiheadAttention"):
        layer(*(mx.array(x.numpy()) for x in tensors), **arrays)


@each_kind
def test_a_layer_can_be_copied_and_compiled(kind: str) -> None:
    _, layer = pair(kind, activation="gelu")
    arrays = [mx.array(x.numpy()) for x in inputs(kind)]
    twin = copy.deepcopy(layer)
    got = mx.compile(lambda *x: twin(*x))(*arrays)
    np.testing.assert_allclose(np.array(got), np.array(layer(*arrays)), atol=1e-5)


@pytest.mark.parametrize(("eps", "target"), [(1e-5, nn.LayerNorm), (0.0, layers.LayerNorm)])
def test_normalisation_is_mlxs_where_it_can_be(eps: float, target: type) -> None:
    _, layer = pair("encoder", layer_norm_eps=eps)
    assert type(layer.norm1) is target
