"""Folders of small causal language models with a tokenizer, as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import import_torchvision  # noqa: F401
import torch

TEXT = {
    **{"vocab_size": 50, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "max_position_embeddings": 64},
}
# grouped queries; tied embeddings and biases; a part of each head is turned; a table of positions
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaForCausalLM", {**TEXT, "num_key_value_heads": 2}),
    "Qwen2": ("Qwen2ForCausalLM", {**TEXT, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "Phi": ("PhiForCausalLM", TEXT),
    "GPT-2": (
        "GPT2LMHeadModel",
        {"vocab_size": 50, "n_embd": 24, "n_layer": 1, "n_head": 2, "n_positions": 20},
    ),
}


def write_language_model(folder: Path, architecture: str) -> Any:
    """Write a model with random weights and a tokenizer of letters; return the model."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    torch.manual_seed(0)
    name, settings = ARCHITECTURES[architecture]
    cls = getattr(transformers, name)
    config = cls.config_class(**settings, pad_token_id=0, bos_token_id=1, eos_token_id=1)
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far apart, so that no rounding decides for a token
            parameter.copy_(torch.randn_like(parameter) / 4)
    model.save_pretrained(folder)
    # of bytes: whatever class transformers reads it as by the architecture, tokens stay the same
    letters = {letter: number for number, letter in enumerate("w0123456789Ġabcdefghijkl", 2)}
    words = {"<pad>": 0, "<s>": 1, **letters}
    tokenizer = Tokenizer(models.BPE(words, [], unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<pad>", bos_token="<s>", eos_token="<s>"
    ).save_pretrained(folder)
    return model
