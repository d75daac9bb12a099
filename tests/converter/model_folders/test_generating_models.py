"""Folders of models that generate: they convert with a cache, or say why they have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from click.testing import Result

import mlxport
from mlxport.converter.api.checkpoints import analyze_checkpoint, explain_checkpoint
from mlxport.converter.model_folders.find_models import find_model
from mlxport.converter.model_folders.found_model import FoundModel
from mlxport.converter.output.mlx_lm_file import MODEL_FILE

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

Run = Callable[[str], Result]

TOKENS = 12
TEXT = {
    **{"vocab_size": 50, "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 40},
}
OLDER = {"vocab_size": 50, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 40}
ENDLESS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
CACHED = {
    "Llama": ("LlamaForCausalLM", TEXT),
    "Qwen2": ("Qwen2ForCausalLM", TEXT),
    "GPT-2": ("GPT2LMHeadModel", OLDER),
    # asks that keys and values are of one length
    "Gemma 2": (
        "Gemma2ForCausalLM",
        {**TEXT, "head_dim": 8, "layer_types": ["full_attention"] * 2},
    ),
}


def save(name: str, settings: dict[str, Any], folder: str) -> Any:
    """Write a model of transformers with random weights as its library does."""
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**settings, **ENDLESS)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far apart, so that no rounding decides for a token
            parameter.copy_(torch.randn_like(parameter) / 2)
    model.save_pretrained(folder)
    return model


def found_in(folder: str) -> FoundModel:
    found = find_model(Path(folder))
    assert found is not None
    return found


def generated(model: Any, ids: np.ndarray) -> np.ndarray:
    """Return ids with the tokens that an MLX model goes on with, by its cache."""
    cache, tokens = model.make_cache(), mx.array(ids)
    given = [tokens]
    for _ in range(TOKENS):
        tokens = model(tokens, cache=cache)["logits"][:, -1:].argmax(-1)
        given.append(tokens)
    return np.array(mx.concatenate(given, axis=1))


@pytest.mark.parametrize("architecture", CACHED)
def test_the_folder_alone_gives_the_tokens_of_generate(
    architecture: str, run: Run, readme: Callable[[str], str]
) -> None:
    model = save(*CACHED[architecture], "llama")
    result = run(readme("mlxport convert llama/"))
    assert result.exit_code == 0, result.stderr
    assert "; with a cache; example inputs input_ids=int64:2,5:0..49; " in result.stderr
    assert "; open: batch and lengths\n" in result.stderr
    assert json.loads(Path("out/conversion.json").read_text())["cache"]["layers"] == 2
    ids = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    given = torch.from_numpy(ids)
    want = model.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=TOKENS, do_sample=False
    )
    np.testing.assert_array_equal(generated(mlxport.load("out"), ids), want.numpy())


WITHOUT = {
    "windows": (
        ("MistralForCausalLM", {**TEXT, "sliding_window": 4}),
        "no cache (it has layers of the kind DynamicSlidingWindowLayer)",
    ),
    "encoder and decoder": (
        (
            "T5ForConditionalGeneration",
            {"vocab_size": 50, "d_model": 24, "d_kv": 8, "d_ff": 48, "num_heads": 3},
        ),
        "no cache;",
    ),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_other_caches_are_off(case: str) -> None:
    (name, settings), said = WITHOUT[case]
    cls = getattr(transformers, name)
    Path("model").mkdir()
    config = cls.config_class(**settings, architectures=[name])
    config.save_pretrained("model")
    found = found_in("model")
    assert said in found.summary("")
    assert found.without_cache is None
    assert not found.kwargs


def refusing(*args: Any, **kwargs: Any) -> Any:
    raise ValueError("no past here")


# what is replaced, by what, and what is said of it
UNCAPTURED: dict[str, tuple[str, Callable[..., Any], str]] = {
    "it cannot be filled": (
        "transformers.DynamicCache.get_seq_length",
        refusing,
        "LlamaForCausalLM cannot be called on 7 tokens with an empty cache: ValueError: no past",
    ),
    "it would stay tensors": (
        "mlxport.converter.graph.capture.capture.replace_caches",
        lambda *_: None,
        "past_key_values: the model does more with its cache than to add to it",
    ),
}


@pytest.mark.parametrize("case", UNCAPTURED)
def test_where_no_cache_can_be_captured_there_is_none(
    case: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, replacement, said = UNCAPTURED[case]
    save(*CACHED["Llama"], "model")
    monkeypatch.setattr(place, replacement)
    result = run("mlxport convert model -o out")
    assert result.exit_code == 0, result.stderr
    assert "LlamaForCausalLM, by config.json; no cache; example inputs" in result.stderr
    words = " ".join(result.stderr.split())
    assert f"there is no cache, as it cannot be captured with one: {said}" in words
    assert not hasattr(mlxport.load("out"), "make_cache")
    assert "model_file" not in json.loads(Path("out/config.json").read_text())


def test_axes_of_the_user_are_taken_without_a_cache() -> None:
    save(*CACHED["Llama"], "model")
    result: Any = mlxport.convert_checkpoint("model", "out", dynamic=(0,))
    assert result.conversion.cache is None
    assert result.report.passed


def test_one_plan_serves_several_with_their_caches() -> None:
    for folder in ("one", "two"):
        save(*CACHED["Llama"], folder)
    many = mlxport.convert_many(["one", "two"], "out")
    assert [row.how for row in many.rows] == ["converted", "by the plan of one"]
    assert not many.strayed
    assert not many.failed
    assert hasattr(mlxport.load("out/two", check_code=True), "make_cache")
    assert json.loads(Path("out/two/config.json").read_text())["model_file"] == MODEL_FILE
    assert Path("out/two", MODEL_FILE).read_bytes() == Path("out/one", MODEL_FILE).read_bytes()


@pytest.mark.parametrize("task", [analyze_checkpoint, explain_checkpoint])
def test_what_would_become_of_it_is_told_with_its_cache(task: Callable[..., Any]) -> None:
    save(*CACHED["Llama"], "model")
    assert "LlamaForCausalLM" in str(task("model"))
