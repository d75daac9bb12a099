"""Causal language models of transformers with a cache: prefill, then decoding.

``MLXPORT_SWEEP=1`` tries every architecture, otherwise three.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.api.folders import verify_folder
from mlxport.converter.errors import CaptureError

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

SWEEP = os.environ.get("MLXPORT_SWEEP") == "1"

BATCH, PROMPT, PAST, TOKENS, STEPS = 2, 5, 7, 64, 16
ALIKE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {**ALIKE, "num_attention_heads": 4, "max_position_embeddings": 128}
GROUPS = {**HEADS, "num_key_value_heads": 2}
SIZED = {**GROUPS, "head_dim": 8}
FULL = {"layer_types": ["full_attention"] * 2}
NAMED = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}

# architecture -> its class, the class of its configuration, the configuration
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Llama": ("LlamaForCausalLM", "LlamaConfig", GROUPS),
    "GPT-2": ("GPT2LMHeadModel", "GPT2Config", NAMED),
    "Bloom": (
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    ),
    "Cohere": ("CohereForCausalLM", "CohereConfig", GROUPS),
    "Falcon": (
        "FalconForCausalLM",
        "FalconConfig",
        {k: v for k, v in HEADS.items() if k != "intermediate_size"},
    ),
    "Gemma": ("GemmaForCausalLM", "GemmaConfig", SIZED),
    "Gemma 2": ("Gemma2ForCausalLM", "Gemma2Config", {**SIZED, **FULL}),
    "Gemma 3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**SIZED, **FULL}),
    "GPT-J": ("GPTJForCausalLM", "GPTJConfig", {**NAMED, "rotary_dim": 4}),
    "GPT-NeoX": ("GPTNeoXForCausalLM", "GPTNeoXConfig", HEADS),
    "Granite": ("GraniteForCausalLM", "GraniteConfig", GROUPS),
    "Helium": ("HeliumForCausalLM", "HeliumConfig", SIZED),
    "Mistral": ("MistralForCausalLM", "MistralConfig", {**GROUPS, "sliding_window": None}),
    "Mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPS, "num_local_experts": 4, "sliding_window": None},
    ),
    "OLMo 2": ("Olmo2ForCausalLM", "Olmo2Config", GROUPS),
    "OPT": ("OPTForCausalLM", "OPTConfig", {**HEADS, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Phi": ("PhiForCausalLM", "PhiConfig", HEADS),
    "Phi-3": ("Phi3ForCausalLM", "Phi3Config", {**GROUPS, "sliding_window": None}),
    "Qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPS),
    "Qwen3": ("Qwen3ForCausalLM", "Qwen3Config", SIZED),
    "Qwen3-MoE": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {**SIZED, "num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2},
    ),
    "SmolLM3": ("SmolLM3ForCausalLM", "SmolLM3Config", GROUPS),
    "StableLM": ("StableLmForCausalLM", "StableLmConfig", GROUPS),
    "StarCoder2": ("Starcoder2ForCausalLM", "Starcoder2Config", {**GROUPS, "sliding_window": None}),
}
ALWAYS = ("Llama", "GPT-2", "Bloom")


def built(architecture: str, randomise: Callable[[nn.Module], nn.Module]) -> Any:
    name, configuration, settings = ARCHITECTURES[architecture]
    config = getattr(transformers, configuration)(
        **settings, pad_token_id=0, bos_token_id=1, eos_token_id=None
    )
    config._experts_implementation = "batched_mm"  # "grouped_mm", the default, is refused
    return randomise(getattr(transformers, name)(config))


def with_past(model: nn.Module, length: int = PAST) -> Any:
    """Return a cache that the model has filled."""
    cache = transformers.DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.randint(0, 64, (BATCH, length)), past_key_values=cache)
    return cache


def arrays(cache: Any, length: int | None = None) -> list[tuple[mx.array, mx.array]]:
    """Return the first places of a cache, as the MLX model takes them."""
    pairs = ((layer.keys, layer.values) for layer in cache.layers)
    return [
        (mx.array(keys[:, :, :length].numpy()), mx.array(values[:, :, :length].numpy()))
        for keys, values in pairs
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES if SWEEP else ALWAYS)
def test_prefill_and_decoding_give_the_tokens_of_generate(architecture, randomise):
    torch.manual_seed(0)
    model = built(architecture, randomise)
    cache, ids = with_past(model), torch.randint(0, 64, (BATCH, PROMPT))
    result = mlxport.convert(
        model,
        kwargs={"input_ids": ids, "past_key_values": cache},
        dynamic={"input_ids": (0, 1), "past_key_values": (0, 2)},
    )
    assert result.report.passed, result.report.verdict
    assert cache.get_seq_length() == PAST  # the example's cache has not grown
    expected = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        do_sample=False,
        past_key_values=transformers.DynamicCache(config=model.config),
    )
    past, theirs = result.model.make_cache(), transformers.DynamicCache(config=model.config)
    tokens = mx.array(ids.numpy())
    given = [tokens]
    for step in range(TOKENS):
        logits = result.model(tokens, cache=past)["logits"]
        if step <= STEPS:
            with torch.no_grad():
                out = model(
                    torch.from_numpy(np.array(tokens, dtype=np.int64)), past_key_values=theirs
                )
            assert np.allclose(np.array(logits), out.logits.numpy(), rtol=1e-3, atol=1e-4)
        tokens = logits[:, -1:].argmax(-1)
        mx.eval(tokens)
        given.append(tokens)
    assert np.array_equal(np.array(mx.concatenate(given, axis=1)), expected.numpy())
    assert [layer.offset for layer in past] == [PROMPT + TOKENS - 1] * 2


def test_a_folder_with_a_cache_is_loaded_verified_and_exported_without_torch(
    tmp_path, randomise, run_without
):
    torch.manual_seed(0)
    model = built("Llama", randomise)
    torch.save(model.state_dict(), tmp_path / "llama.pt")
    ids = torch.randint(0, 64, (BATCH, PROMPT))
    result = mlxport.convert_checkpoint(
        tmp_path / "llama.pt",
        tmp_path / "out",
        model=model,
        kwargs={"input_ids": ids, "past_key_values": with_past(model)},
        dynamic={"input_ids": (0, 1), "past_key_values": (0, 2)},
        gradients=True,
    )
    assert result.report.passed, result.report.verdict
    for text in ("cache[0].offset", "cache.update_and_fetch(", "def make_cache(self)"):
        assert text in result.source
    code = """
import mlx.core as mx, mlxport
from mlxport.converter.api.folders import verify_folder
model = mlxport.load("out")
cache = model.make_cache()
whole = model(mx.arange(6)[None])["logits"]
first, last = (model(ids[None], cache=cache)["logits"] for ids in (mx.arange(5), mx.array([5])))
assert mx.allclose(whole, mx.concatenate([first, last], axis=1), atol=1e-4)
report = verify_folder("out")
assert report.passed, report.verdict
assert {"empty cache", "one token"} <= {other.case for other in report.others}
mlxport.export_function("out", "model.mlxfn")
"""
    done = run_without(["torch", "transformers"], code)
    assert done.returncode == 0, done.stderr


def test_fixed_sizes_are_held_to_and_a_folder_is_verified_without_torch(tmp_path, randomise):
    torch.manual_seed(0)
    model = built("Llama", randomise)
    cache, ids = with_past(model), torch.randint(0, 64, (BATCH, PROMPT))
    checkpoint = tmp_path / "llama.pt"
    torch.save(model.state_dict(), checkpoint)
    result = mlxport.convert_checkpoint(
        checkpoint,
        tmp_path / "out",
        model=model,
        kwargs={"input_ids": ids, "past_key_values": cache, "use_cache": True},
    )
    assert result.report.passed, result.report.verdict
    assert verify_folder(tmp_path / "out").passed
    loaded = mlxport.load(tmp_path / "out")
    out = loaded(mx.array(ids.numpy()), past_key_values=arrays(cache))
    with torch.no_grad():
        expected = model(ids, past_key_values=cache)
    assert np.allclose(np.array(out["logits"]), expected.logits.numpy(), atol=1e-4)
    for pair, layer in zip(out["past_key_values"], cache.layers, strict=True):
        assert np.allclose(np.array(pair[0]), layer.keys.numpy(), atol=1e-4)
        assert np.allclose(np.array(pair[1]), layer.values.numpy(), atol=1e-4)
    with pytest.raises(ValueError, match="converted for"):
        loaded(mx.array(ids.numpy()), past_key_values=arrays(cache))  # it has grown


def test_a_cache_that_is_only_given_back_is_refused(randomise):
    model = built("Llama", randomise)
    with pytest.raises(CaptureError, match=r"returns a DynamicCache.*use_cache=False.*\(in Python"):
        mlxport.convert(model, torch.randint(0, 64, (BATCH, PROMPT)))
