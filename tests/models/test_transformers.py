"""Models of torch's attention and transformer layers, converted op by op and verified."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mlxport

CAUSAL = torch.zeros(6, 6).masked_fill(torch.ones(6, 6).triu(1) > 0, -torch.inf)


class Language(nn.Module):
    """A small language model: token and position embeddings, causal encoder layers, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 8)
        self.positions = nn.Parameter(torch.zeros(1, 6, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8))
        self.head = nn.Linear(8, 20)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        x = self.tokens(tokens) + self.positions
        y: torch.Tensor = self.head(self.encoder(x, mask=mask, is_causal=True))
        return y


class Calling(nn.Module):
    """Calls a layer with flags, gives its tensors and leaves out what is None."""

    def __init__(self, layer: nn.Module, masks: tuple[str, ...] = (), **flags: Any) -> None:
        super().__init__()
        self.layer = layer
        self.masks = masks
        self.flags = flags

    def forward(self, *tensors: torch.Tensor) -> Any:
        count = len(tensors) - len(self.masks)
        masks = dict(zip(self.masks, tensors[count:], strict=True))
        y = self.layer(*tensors[:count], **masks, **self.flags)
        return y[0] if isinstance(y, tuple) and y[1] is None else y


def attention(**arguments: Any) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(8, 2, **arguments)


def encoder(**arguments: Any) -> nn.TransformerEncoder:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, **arguments), 2)


def decoder() -> nn.TransformerDecoder:
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2, nn.LayerNorm(8))


def sequence(length: int = 6) -> torch.Tensor:
    return torch.randn(length, 3, 8)


def padding(length: int = 6) -> torch.Tensor:
    return torch.ones(3, length).tril(length - 3) == 0


Case = tuple[Callable[[], nn.Module], Callable[[], tuple[torch.Tensor, ...]]]
MODELS: dict[str, Case] = {
    "language": (Language, lambda: (torch.randint(0, 20, (2, 6)),)),
    "attention": (attention, lambda: (sequence(4), *[sequence()] * 2)),
    "attention_masked": (
        lambda: Calling(attention(add_bias_kv=True), ("attn_mask", "key_padding_mask")),
        lambda: (*[sequence()] * 3, CAUSAL < 0, padding()),
    ),
    "attention_without_weights": (
        lambda: Calling(attention(bias=False), ("attn_mask",), need_weights=False, is_causal=True),
        lambda: (*[sequence()] * 3, CAUSAL),
    ),
    "attention_of_other_sizes": (
        lambda: attention(kdim=5, vdim=3, add_zero_attn=True),
        lambda: (sequence(4), torch.randn(6, 3, 5), torch.randn(6, 3, 3)),
    ),
    "encoder": (
        lambda: Calling(encoder(activation="gelu"), ("src_key_padding_mask",)),
        lambda: (sequence(), padding()),
    ),
    "encoder_float_mask": (
        lambda: Calling(encoder(batch_first=True), ("mask",), is_causal=False),
        lambda: (torch.randn(3, 6, 8), torch.randn(6, 6)),
    ),
    "decoder": (
        lambda: Calling(decoder(), ("tgt_mask", "memory_key_padding_mask"), tgt_is_causal=True),
        lambda: (sequence(), sequence(4), CAUSAL, padding(4)),
    ),
    "transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16), lambda: (sequence(4), sequence())),
}


@pytest.mark.parametrize(("build", "inputs"), MODELS.values(), ids=MODELS)
def test_parity(
    randomise: Callable[[nn.Module], nn.Module],
    build: Callable[[], nn.Module],
    inputs: Callable[[], tuple[torch.Tensor, ...]],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fast paths not taken, of masks of two kinds
        converted = mlxport.convert(randomise(build()), inputs())
    assert converted.report.passed, converted.report


def test_encoder_and_decoder_of_t5() -> None:
    """Position biases go from layer to layer, masks come about only as it is captured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import T5Config, T5Model

        sizes = {"d_model": 24, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 3}
        model = T5Model(T5Config(vocab_size=50, use_cache=False, **sizes)).eval()
        ids, decoder_ids = torch.randint(0, 50, (2, 7)), torch.randint(0, 50, (2, 5))
        converted = mlxport.convert(model, ids, {"decoder_input_ids": decoder_ids})
    assert converted.report is not None
    assert converted.report.passed, converted.report.to_text()
    assert "hidden_states: mx.array, mask: mx.array, position_bias: mx.array" in converted.source
    assert "mx.log(" not in converted.source  # the buckets of positions are kept
