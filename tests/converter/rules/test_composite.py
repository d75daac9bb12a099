"""Whether a composite layer still is what its constructor builds, on the transformer's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import spec_for

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")


def encoder_layer(**arguments: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, **{"dim_feedforward": 12, **arguments})


def decoder_layer(**arguments: Any) -> nn.TransformerDecoderLayer:
    return nn.TransformerDecoderLayer(8, 2, **{"dim_feedforward": 12, **arguments})


def encoder(norm: nn.Module | None = None, **arguments: Any) -> nn.TransformerEncoder:
    return nn.TransformerEncoder(encoder_layer(**arguments), 2, norm)


def decoder(norm: nn.Module | None = None, **arguments: Any) -> nn.TransformerDecoder:
    return nn.TransformerDecoder(decoder_layer(**arguments), 2, norm)


def transformer(**arguments: Any) -> nn.Transformer:
    return nn.Transformer(8, 2, 2, 1, **{"dim_feedforward": 12, **arguments})


def changed(module: nn.Module, path: str, value: Any) -> nn.Module:
    """Set something inside a module after its construction."""
    *parents, name = path.split(".")
    setattr(module.get_submodule(".".join(parents)), name, value)
    return module


def hooked(module: nn.Module) -> nn.Module:
    module.layers[1].linear2.register_forward_pre_hook(lambda *_: None)
    return module


def parametrised(module: nn.Module) -> nn.Module:
    nn.utils.parametrizations.weight_norm(module.linear1)
    return module


class Own(nn.TransformerEncoderLayer):
    def _ff_block(self, x: torch.Tensor) -> torch.Tensor:
        return x


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "other_dropout": (
        lambda: changed(encoder_layer(), "dropout2.p", 0.7),
        "dropout2: p is 0.7, not 0.1",
    ),
    "other_attention_dropout": (
        lambda: changed(decoder_layer(), "multihead_attn.dropout", 0.7),
        "multihead_attn: dropout is 0.7, not 0.1",
    ),
    "other_eps": (
        lambda: changed(encoder(), "layers.1.norm2.eps", 0.1),
        r"layers.1.norm2: eps is 0.1, not 1e-05",
    ),
    "other_order": (
        lambda: changed(decoder(), "layers.1.norm_first", True),
        "layers.1: norm_first is True, not False",
    ),
    "other_activation": (
        lambda: changed(encoder(), "layers.1.activation", F.silu),
        "layers.1: activation is <function silu",
    ),
    "other_width": (
        lambda: changed(encoder(), "layers.1.linear1", nn.Linear(8, 7)),
        "layers.1.linear1: out_features is 7, not 12",
    ),
    "other_norm_inside": (
        lambda: changed(encoder_layer(), "norm2", nn.RMSNorm(8)),
        "norm2: is a RMSNorm, not a LayerNorm",
    ),
    "bias_taken_away": (
        lambda: changed(encoder(), "layers.1.norm2.bias", None),
        "layers.1.norm2: has the tensors",
    ),
    "part_exchanged": (
        lambda: changed(decoder_layer(), "linear1", nn.Identity()),
        "a part of it was exchanged",
    ),
    "part_added": (lambda: changed(encoder(), "layers.0.extra", nn.Linear(2, 2)), "extra: added"),
    "method_replaced": (
        lambda: changed(encoder(), "layers.0._sa_block", lambda *_: 0),
        "layers.0: its method _sa_block was replaced",
    ),
    "hook_inside": (lambda: hooked(encoder()), "layers.1.linear2: a forward hook"),
    "parametrised": (lambda: parametrised(encoder_layer()), "is a ParametrizedLinear"),
    "layer_of_another_class": (
        lambda: nn.TransformerEncoder(Own(8, 2), 2),
        "layers.0: is a Own, not a TransformerEncoderLayer",
    ),
    "layer_of_no_such_kind": (
        lambda: changed(encoder(), "layers.0", nn.Linear(8, 8)),
        "a part of it was exchanged",
    ),
    "final_norm_of_two_axes": (lambda: encoder(nn.LayerNorm((3, 8))), "normalized_shape"),
    "final_norm_taken_away": (
        lambda: changed(transformer(), "decoder.norm", None),
        "decoder.norm: missing",
    ),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        spec_for(build())


def test_all_differences_are_listed_at_once() -> None:
    module = changed(changed(encoder(), "layers.0.dropout1.p", 0.7), "layers.1.norm1.eps", 0.1)
    with pytest.raises(UnsupportedError, match=r"(?s)dropout1: p is.*layers.1.norm1: eps is"):
        spec_for(module)
