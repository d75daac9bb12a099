"""Folders that save_pretrained of diffusers writes, and whole pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from mlxport.converter.errors import CheckpointError, OptionsError
from mlxport.converter.model_folders.find_models import find_model, find_models

Run = Callable[[str], Result]

UNET = {
    **{"sample_size": 16, "block_out_channels": (8, 16), "layers_per_block": 1},
    **{"norm_num_groups": 4, "cross_attention_dim": 12, "attention_head_dim": 4},
    **{"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")},
    **{"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")},
}
PLAIN = {
    **{"sample_size": 16, "block_out_channels": (8, 16), "layers_per_block": 1},
    **{"norm_num_groups": 4, "down_block_types": ("DownBlock2D",) * 2},
    **{"up_block_types": ("UpBlock2D",) * 2},
}
VAE = {"block_out_channels": (4,), "layers_per_block": 1, "norm_num_groups": 2}

UNDERSTOOD: dict[str, tuple[str, dict[str, Any], tuple[str, ...], Any]] = {
    "a U-Net with text": (
        "UNet2DConditionModel",
        UNET,
        ("sample=2,4,16,16", "timestep=int64:2:0..999", "encoder_hidden_states=2,7,12"),
        {"sample": (0, 2, 3), "timestep": (0,), "encoder_hidden_states": (0, 1)},
    ),
    "a U-Net": ("UNet2DModel", PLAIN, ("sample=2,3,16,16", "timestep=int64:2:0..999"), (0, 2, 3)),
    "an autoencoder": ("AutoencoderKL", VAE, ("sample=2,3,32,32",), (0, 2, 3)),
    "one without an example": (
        "PriorTransformer",
        {"num_attention_heads": 1, "attention_head_dim": 8, "num_layers": 1, "embedding_dim": 8},
        (),
        None,
    ),
}


def save(name: str, settings: dict[str, Any], folder: str = "model") -> None:
    import diffusers

    getattr(diffusers, name)(**settings).save_pretrained(folder)


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_inputs_follow_from_the_configuration(case: str) -> None:
    name, settings, inputs, dynamic = UNDERSTOOD[case]
    save(name, settings)
    found = find_model(Path("model"))
    assert found is not None
    assert found.inputs == inputs
    assert (found.dynamic or (None,))[0] == dynamic
    assert type(found.factory.build()).__name__ == name


def test_each_model_of_a_pipeline_is_found() -> None:
    save("UNet2DModel", PLAIN, "pipeline/unet")
    save("AutoencoderKL", VAE, "pipeline/vae")
    index = {
        "_class_name": "LDMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": ["diffusers", "VQModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "../other": ["diffusers", "UNet2DModel"],
    }
    Path("pipeline/scheduler").mkdir()
    Path("pipeline/model_index.json").write_text(json.dumps(index))
    assert list(find_models(Path("pipeline"))) == ["unet", "vae"]
    with pytest.raises(OptionsError, match=r"holds 2 models \(unet, vae\)"):
        find_model(Path("pipeline"))


def test_a_pipeline_converts_part_by_part(run: Run) -> None:
    for part in ("encoder", "decoder"):
        save("AutoencoderKL", VAE, f"pipeline/{part}")
    described = '{"encoder": ["diffusers", "AutoencoderKL"], "decoder": ["diffusers", "Autoenco"]}'
    Path("pipeline/model_index.json").write_text(described)
    result = run("mlxport convert pipeline -o out")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("encoder  converted               parity holds")
    assert "decoder  by the plan of encoder  parity holds" in result.stdout
    assert Path("out/encoder/model.py").is_file()
    assert json.loads(Path("out/parity.json").read_text()).keys() == {"encoder", "decoder"}


def test_a_pipeline_without_models_is_told() -> None:
    Path("pipeline/scheduler").mkdir(parents=True)
    index = '{"scheduler": ["diffusers", "DDIMScheduler"]}'
    Path("pipeline/model_index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"without the folder of any model in it \(scheduler"):
        find_models(Path("pipeline"))


def test_a_missing_library_is_named_with_its_extra(without: Callable[[str], None]) -> None:
    save("AutoencoderKL", VAE)
    without("diffusers")
    with pytest.raises(CheckpointError, match=r"pip install 'mlxport\[diffusers\]'"):
        find_model(Path("model"))


def test_a_class_that_diffusers_has_not_is_told() -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text('{"_class_name": "DDIMScheduler"}')
    with pytest.raises(CheckpointError, match="DDIMScheduler, which is no model of diffusers"):
        find_model(Path("model"))
