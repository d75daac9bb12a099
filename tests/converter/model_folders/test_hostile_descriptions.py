"""Descriptions of models with anything in them: understood or refused, and nothing else happens.

``MLXPORT_SWEEP=500`` tries so many changes of each instead of a few, and the command on some.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from changed_records import changed
from click.testing import Result

from mlxport.converter.errors import CheckpointError, ConversionError
from mlxport.converter.model_folders.find_models import find_models

Run = Callable[[str], Result]

SWEEP = int(os.environ.get("MLXPORT_SWEEP", "0"))
CHANGES = SWEEP or 12

BERT = {
    **{"architectures": ["BertModel"], "hidden_size": 24, "num_hidden_layers": 1},
    **{"num_attention_heads": 3, "intermediate_size": 48, "vocab_size": 50},
    **{"max_position_embeddings": 20, "model_type": "bert", "use_cache": True},
}
VIT = {
    **{"architecture": "vit_tiny_patch16_224", "num_classes": 10, "num_features": 192},
    "model_args": {"img_size": 32, "depth": 1},
    "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], "classifier": "head"},
}
VAE = {
    **{"_class_name": "AutoencoderKL", "block_out_channels": [4], "layers_per_block": 1},
    **{"norm_num_groups": 2, "sample_size": 32, "in_channels": 3},
}
PLANS = {
    "transpose_forward": [0, 1],
    "foreground_intensity_properties_per_channel": {"0": {"mean": 1.5}},
    "configurations": {
        "2d": {
            **{"UNet_class_name": "PlainConvUNet", "patch_size": [16, 16], "spacing": [1.0, 0.5]},
            **{"UNet_base_num_features": 4, "unet_max_num_features": 320},
            **{"conv_kernel_sizes": [[3, 3], [3, 3]], "pool_op_kernel_sizes": [[1, 1], [2, 2]]},
            **{"n_conv_per_stage_encoder": [1, 1], "n_conv_per_stage_decoder": [1]},
            "normalization_schemes": ["ZScoreNormalization"],
        }
    },
}
DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "whole": [1, 2], "part": 2},
    "regions_class_order": [1, 2],
}
NETWORK = {
    **{"_target_": "UNet", "spatial_dims": 2, "in_channels": "@channels", "out_channels": 2},
    **{"channels": [4, 8], "strides": "$@unet::strides", "norm": "batch"},
}
BUNDLE = {"channels": 1, "unet": {"strides": [2]}, "network_def": NETWORK}
IMAGE = {"type": "image", "num_channels": 1, "spatial_shape": [32, 32]}
METADATA = {"network_data_format": {"inputs": {"image": IMAGE}}}

TRAINED = "nnUNetTrainer__nnUNetPlans__2d"
# What is there -> the data of each file; the first is the one that changes.
DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "transformers": {"m/config.json": BERT},
    "timm": {"m/config.json": VIT},
    "diffusers": {"m/config.json": VAE},
    "a pipeline": {"m/model_index.json": {"vae": ["diffusers", "AutoencoderKL"]}},
    "plans": {f"m/{TRAINED}/plans.json": PLANS, f"m/{TRAINED}/dataset.json": DATASET},
    "dataset": {f"m/{TRAINED}/dataset.json": DATASET, f"m/{TRAINED}/plans.json": PLANS},
    "a bundle": {"m/configs/inference.json": BUNDLE},
    "a bundle in YAML": {"m/configs/inference.yaml": BUNDLE},
    "metadata": {"m/configs/metadata.json": METADATA, "m/configs/inference.json": BUNDLE},
}


# A network of so many layers is built until no memory is left: no promise says otherwise.
COUNTS = {
    *{"num_hidden_layers", "depth", "layers_per_block", "latent_channels", "num_res_units"},
    *{"n_conv_per_stage_encoder", "n_conv_per_stage_decoder", "n_blocks_per_stage"},
}
MOST = 1000


def asks_for_too_much(data: Any, counted: bool = False) -> bool:
    """Tell whether numbers of layers in a description are beyond any network."""
    if isinstance(data, dict):
        return any(asks_for_too_much(v, counted or k in COUNTS) for k, v in data.items())
    if isinstance(data, list):
        return any(asks_for_too_much(value, counted) for value in data)
    return counted and isinstance(data, (int, float)) and data > MOST


def write(case: str) -> tuple[Path, Path]:
    """Write a folder, and return it with the file that is to change."""
    files = DESCRIPTIONS[case]
    for name, data in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(json.dumps(data))
    first = Path(next(iter(files)))
    if case == "a pipeline":
        Path("m/vae").mkdir()
        Path("m/vae/config.json").write_text(json.dumps(VAE))
    if first.parent.name != TRAINED:
        return Path("m"), first
    (first.parent / "fold_0").mkdir()
    noted = {"network_weights": {"a": torch.ones(1)}, "trainer_name": "nnUNetTrainer"}
    torch.save(noted, first.parent / "fold_0/checkpoint_final.pth")
    return first.parent, first


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_changed_description_is_understood_or_refused(case: str, run: Run) -> None:
    source, file = write(case)
    assert find_models(source)
    whole = json.loads(file.read_text())
    for seed in range(CHANGES):
        data = changed(whole, random.Random(f"{case} {seed}"))
        if asks_for_too_much(data):
            continue
        file.write_text(json.dumps(data))
        with contextlib.suppress(ConversionError), torch.device("meta"):  # some are large
            for found in find_models(source).values():
                found.factory.build()
                assert found.summary()
        if seed % 25 == 24:
            result = run(f"mlxport convert {source} --dry-run")
            assert result.exit_code in (0, 1, 2), result.output
            assert (result.stdout + result.stderr).replace("\n", "").isprintable()
            assert "nobody foresaw" not in result.stderr


# What was found: a file, where in it, and what stood there.
FOUND: dict[str, tuple[str, tuple[Any, ...], Any]] = {
    "strides that are a number": (
        "plans",
        ("configurations", "2d", "pool_op_kernel_sizes"),
        0.5,
    ),
    "a stride that is text": ("plans", ("configurations", "2d", "pool_op_kernel_sizes", 0, 0), "a"),
    "too few strides": ("plans", ("configurations", "2d", "pool_op_kernel_sizes", 0), [1]),
    "a part that is the pipeline": ("a pipeline", (".",), ["diffusers", "UNet2DModel"]),
    "a part without a name": ("a pipeline", ("",), ["diffusers", "UNet2DModel"]),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_finding_is_one_error_or_nothing(name: str) -> None:
    case, (*above, last), value = FOUND[name]
    source, file = write(case)
    data = inside = json.loads(file.read_text())
    for key in above:
        inside = inside[key]
    inside[last] = value
    file.write_text(json.dumps(data))
    if case == "a pipeline":
        assert list(find_models(source)) == ["vae"]
    else:
        with pytest.raises(CheckpointError, match=f"{source}: what it says of its model cannot be"):
            find_models(source)
