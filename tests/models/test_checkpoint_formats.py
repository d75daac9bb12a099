"""One network in every kind of checkpoint gives one MLX model, bit for bit."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mlxport.converter import api
from mlxport.examples.unet3d import UNet3d

Weights = dict[str, torch.Tensor]


def small() -> nn.Module:
    return UNet3d(widths=(2, 4))


def sharded(weights: Weights, folder: Path) -> Path:
    """Write two shards and their index, as Hugging Face does."""
    names = sorted(weights)
    files = {name: f"model-0000{1 + (name > names[9])}-of-00002.safetensors" for name in names}
    for file in set(files.values()):
        save_file({k: v for k, v in weights.items() if files[k] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return index


def pickled(folder: Path, contents: object, name: str = "model.pt") -> Path:
    torch.save(contents, folder / name)
    return folder / name


def safetensors(weights: Weights, folder: Path) -> Path:
    save_file(weights, folder / "model.safetensors")
    return folder / "model.safetensors"


def with_prefix(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def with_objects(weights: Weights, folder: Path) -> Path:
    """Save what torch.load(weights_only=True) refuses, beside the weights."""
    run = {"args": argparse.Namespace(lr=0.1), "path": Path("runs"), "dice": np.float32(0.5)}
    return pickled(folder, {"model": weights, **run})


def whole_module(weights: Weights, folder: Path) -> Path:
    module = small()
    module.load_state_dict(weights)
    return pickled(folder, module)


FORMATS: dict[str, Callable[[Weights, Path], Path]] = {
    "bare": lambda weights, folder: pickled(folder, weights),
    "nested": lambda weights, folder: pickled(folder, {"epoch": 7, "model_state_dict": weights}),
    "data-parallel": lambda weights, folder: pickled(folder, with_prefix("module.", weights)),
    "lightning": lambda weights, folder: pickled(
        folder, {"state_dict": with_prefix("net.", weights), "callbacks": {}}, "last.ckpt"
    ),
    "compiled": lambda weights, folder: pickled(folder, with_prefix("_orig_mod.", weights)),
    "with-objects": with_objects,
    "whole-module": whole_module,
    "safetensors": safetensors,
    "sharded": sharded,
    "folder": lambda weights, folder: sharded(weights, folder).parent,
}


@pytest.fixture
def model(randomise: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return randomise(small())


@pytest.mark.parametrize("save", FORMATS.values(), ids=FORMATS)
def test_gives_the_same_model(
    model: nn.Module, tmp_path: Path, save: Callable[[Weights, Path], Path]
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    result = api.convert_checkpoint(
        save(model.state_dict(), folder), tmp_path / "out", model=small(), inputs=["1,1,4,6,5"]
    )
    assert result.report is not None
    assert result.report.passed, result.report.verdict
    expected = model.state_dict()
    named = "model" if [*folder.glob("model*.safetensors")] else "weights"  # as the source has it
    written = dict(mx.load(str(tmp_path / f"out/{named}.safetensors")))
    assert {n for n in expected if not n.endswith("num_batches_tracked")} == {*written}
    for name, tensor in expected.items():
        if tensor.ndim == 1:  # what no change of layout touches
            assert written[name].tolist() == tensor.tolist()
