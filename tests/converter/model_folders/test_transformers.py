"""Folders that save_pretrained of transformers writes: what is understood, what they convert to."""

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
from mlxport.converter.errors import CheckpointError, OptionsError
from mlxport.converter.model_folders.find_models import find_model
from mlxport.converter.model_folders.found_model import FoundModel

Run = Callable[[str], Result]

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 48,
}
TEXT = {**SMALL, "vocab_size": 50, "max_position_embeddings": 20}
IMAGE = {**SMALL, "image_size": 32, "patch_size": 8}
SOUND = {
    **{"vocab_size": 50, "d_model": 24, "encoder_layers": 1, "decoder_layers": 1},
    **{"encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 48},
    **{"decoder_ffn_dim": 48, "num_mel_bins": 8, "max_source_positions": 10},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
}
WAVES = {
    **SMALL,
    **{"vocab_size": 20, "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3)},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
}
BERT = ("BertForSequenceClassification", TEXT)


def save(name: str, settings: dict[str, Any], folder: str = "model") -> Any:
    """Write a model of transformers with random weights as its library does."""
    import transformers

    cls = getattr(transformers, name)
    model = cls(cls.config_class(**settings)).eval()
    model.save_pretrained(folder)
    return model


def found_in(folder: str = "model") -> FoundModel:
    found = find_model(Path(folder))
    assert found is not None
    return found


# class, its settings, what is drawn for it, what is opened
UNDERSTOOD: dict[str, tuple[str, dict[str, Any], tuple[str, ...], Any]] = {
    "an encoder of text": (*BERT, ("input_ids=int64:2,12:0..49",), (0, 1)),
    "a decoder of text": (
        "LlamaForCausalLM",
        {**TEXT, "num_attention_heads": 4},
        ("input_ids=int64:2,5:0..49",),
        {"input_ids": (0, 1), "past_key_values": (0, 2)},
    ),
    "encoder and decoder": (
        "T5ForConditionalGeneration",
        {"vocab_size": 50, "d_model": 24, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 3},
        ("input_ids=int64:2,12:0..49", "decoder_input_ids=int64:2,7:0..49"),
        (0, 1),
    ),
    "images": ("ViTForImageClassification", IMAGE, ("pixel_values=2,3,32,32",), (0,)),
    "features of sound": (
        "WhisperForConditionalGeneration",
        SOUND,
        ("input_features=2,8,20", "decoder_input_ids=int64:2,7:0..49"),
        {"input_features": (0,), "decoder_input_ids": (0, 1)},
    ),
    "samples of sound": ("Wav2Vec2ForCTC", WAVES, ("input_values=2,140",), (0, 1)),
    "images and text": (
        "CLIPModel",
        {"text_config": {**TEXT, "eos_token_id": 49, "bos_token_id": 48}, "vision_config": IMAGE},
        ("pixel_values=2,3,32,32", "input_ids=int64:2,12:0..49"),
        {"pixel_values": (0,), "input_ids": (0, 1)},
    ),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_inputs_follow_from_the_configuration(case: str) -> None:
    name, settings, inputs, dynamic = UNDERSTOOD[case]
    model = save(name, settings)
    found = found_in()
    assert found.inputs == inputs
    assert found.dynamic[0] == dynamic
    assert f"transformers {name}, by config.json" in found.summary()
    rebuilt = found.factory.build().state_dict()
    assert {k: v.shape for k, v in rebuilt.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_padding_is_masked_where_models_read_both_ways() -> None:
    save(*BERT)
    mask = found_in().tensors["attention_mask"]
    assert mask.sum(1).tolist() == [12, 9]


def test_a_folder_converts_by_its_name_alone(run: Run, readme: Callable[[str], str]) -> None:
    model = save(*BERT)
    Path("model").rename("bert")
    result = run(readme("mlxport convert bert/"))
    assert result.exit_code == 0, result.stderr
    assert "parity holds" in result.stdout
    said = "Note: transformers BertForSequenceClassification, by config.json; no cache; example "
    assert said in result.stderr
    assert "; open: batch and length\n" in result.stderr
    record = json.loads(Path("out/conversion.json").read_text())
    assert record["source"]["model"] == "transformers BertForSequenceClassification"
    assert Path("out/config.json").is_file()
    ids, mask = np.arange(15).reshape(3, 5), np.ones((3, 5), np.int64)
    got = mlxport.load("out")(mx.array(ids), mx.array(mask))["logits"]
    with torch.no_grad():
        want = model(torch.tensor(ids), torch.tensor(mask)).logits
    np.testing.assert_allclose(np.array(got), want, atol=1e-5)


# -- what cannot be built --------------------------------------------------------------------------


def test_a_missing_library_is_named_with_its_extra(without: Callable[[str], None]) -> None:
    save(*BERT)
    without("transformers")
    with pytest.raises(CheckpointError) as caught:
        find_model(Path("model"))
    said = str(caught.value)
    assert "model holds the model BertForSequenceClassification of transformers" in said
    assert "pip install 'mlxport[transformers]'" in said
    assert "model='pkg.mod:factory'" in said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"architectures": ["NoSuchModel"]}, "names the class NoSuchModel, which is no model"),
        ({"architectures": ["AutoConfig"]}, "names the class AutoConfig, which is no model"),
        (
            {"architectures": ["Theirs"], "auto_map": {"AutoModel": "theirs.Theirs"}},
            "Its code lies beside it, and is not run.",
        ),
        ({"architectures": ["BertModel"], "hidden_size": "x"}, "cannot be built by it"),
        ([], "expected a JSON object, got list"),
    ],
    ids=["unknown", "no model", "code beside it", "no size", "no object"],
)
def test_what_cannot_be_built_is_told(data: Any, said: str) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError) as caught:
        found_in().factory.build()
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("value", ["them/kernels", "kernels-community/flash-attn2"])
def test_kernels_that_a_configuration_names_are_not_fetched(key: str, value: str) -> None:
    Path("model").mkdir()
    data = {"architectures": ["BertModel"], **TEXT, key: value}
    Path("model/config.json").write_text(json.dumps(data))
    assert found_in().factory.build().config._attn_implementation == "sdpa"


def test_code_of_a_part_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a class that transformers does not map it asks whether to run the folder's own."""
    import transformers
    from transformers.models.auto import auto_factory

    def asked(*args: Any, **kwargs: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(auto_factory, "resolve_trust_remote_code", asked)
    settings = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**{**TEXT, "num_attention_heads": 4}),
        vision_config=transformers.CLIPVisionConfig(**IMAGE),
    ).to_dict()
    for part in ("text_config", "vision_config"):
        settings[part]["auto_map"] = {"AutoModel": "theirs.Theirs"}
    Path("model").mkdir()
    data = {**settings, "architectures": ["LlavaForConditionalGeneration"]}
    Path("model/config.json").write_text(json.dumps(data))
    model = found_in().factory.build()
    assert type(model).__name__ == "LlavaForConditionalGeneration"


def test_a_folder_that_says_nothing_is_a_checkpoint_as_before() -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text('{"model_type": "small"}')
    assert find_model(Path("model")) is None


def test_a_model_of_several_kinds_of_input_asks_for_an_example() -> None:
    """Images within a text stand where the text says so: random numbers do not."""
    import transformers

    settings = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**{**TEXT, "num_attention_heads": 4}),
        vision_config=transformers.CLIPVisionConfig(**IMAGE),
        image_token_index=49,
    )
    transformers.LlavaForConditionalGeneration(settings).save_pretrained("model")
    assert found_in().inputs == ()
    with pytest.raises(OptionsError, match="what transformers LlavaForConditionalGeneration takes"):
        mlxport.convert_checkpoint("model", "out")
    assert not Path("out").exists()
