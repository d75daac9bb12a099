"""Folders of diffusers: ``_class_name`` in ``config.json``, and whole pipelines of them."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlxport.converter.errors import CheckpointError
from mlxport.converter.model_folders.found_model import (
    CONFIG,
    FoundModel,
    built,
    by_hand,
    is_class_of,
    library,
    read_description,
)
from mlxport.converter.model_folders.transformers import transformers_model
from mlxport.converter.torch_model.factory import Factory

_PIPELINE = "model_index.json"

_SIDE = 32  # of example images and latents, where the model takes any
_TEXT = 7  # tokens of a text in the example


def diffusers_models(source: Path) -> Mapping[str, FoundModel]:
    """Return the model of a folder that diffusers wrote, or each model of a pipeline by its name.

    Raises:
        CheckpointError: a library is missing, or does not know a class.
    """
    if (source / _PIPELINE).is_file():
        return _parts(source)
    if not (source / CONFIG).is_file():
        return {}
    config = read_description(source / CONFIG)
    name = config.get("_class_name")
    return {"": _model(source, config, name)} if isinstance(name, str) else {}


def _parts(source: Path) -> dict[str, FoundModel]:
    """Return the models of a pipeline; schedulers, tokenizers and processors are none."""
    index = read_description(source / _PIPELINE)
    parts: dict[str, FoundModel] = {}
    others = []
    for name, described in index.items():
        folder = source / name
        is_inside = name not in ("", ".", "..") and "/" not in name
        if not (isinstance(described, list) and is_inside and folder.is_dir()):
            continue
        found = diffusers_models(folder) or transformers_model(folder)
        if found:
            parts[name] = found[""]
        else:
            others.append(name)
    if not parts:
        raise CheckpointError(
            f"{source}: a pipeline of diffusers, by {_PIPELINE}, without the folder of any model "
            f"in it ({', '.join(others) or 'none of its parts is there'}). {by_hand(source)}"
        )
    return parts


def _model(source: Path, config: dict[str, Any], name: str) -> FoundModel:
    described = f"the model {name} of diffusers"
    diffusers: Any = library("diffusers", "diffusers", described, source)
    cls: Any = getattr(diffusers, name, None)
    if not is_class_of(cls, diffusers.ModelMixin):
        raise CheckpointError(
            f"{source}: {CONFIG} names the class {name}, which is no model of diffusers "
            f"{diffusers.__version__}. {by_hand(source)}"
        )
    # with what the class fills in where the file is silent
    settings = dict(built(described, source, lambda: cls.load_config(str(source))))
    defaults = {
        parameter.name: parameter.default
        for parameter in inspect.signature(cls.__init__).parameters.values()
        if parameter.default is not parameter.empty
    }
    call = _INPUTS.get(name)
    inputs, tensors, ways = call({**defaults, **settings}) if call else ((), {}, ())
    return FoundModel(
        checkpoint=source,
        description=source / CONFIG,
        factory=Factory(
            f"diffusers {name}", lambda: built(described, source, lambda: cls.from_config(settings))
        ),
        inputs=inputs,
        tensors=tensors,
        dynamic=tuple(axes for axes, _ in ways),
        opened=tuple(words for _, words in ways),
        architecture=json.dumps(config, sort_keys=True),
    )


_Call = tuple[tuple[str, ...], dict[str, Any], tuple[tuple[Any, str], ...]]


def _side(settings: Mapping[str, Any], halvings: int) -> int:
    """Return the side of an example image that can be halved so often, twice as long at least."""
    size = settings.get("sample_size")
    side = size[0] if isinstance(size, (list, tuple)) else size
    least: int = 2 * 2**halvings
    wanted: int = min(side, _SIDE) if isinstance(side, int) else _SIDE
    return least * math.ceil(wanted / least)


def _sized(name: str, channels: Any, side: int) -> str:
    return f"{name}=2,{channels},{side},{side}"


def _unet(settings: Mapping[str, Any]) -> _Call:
    side = _side(settings, len(settings["block_out_channels"]) - 1)
    inputs: tuple[str, ...] = (
        _sized("sample", settings["in_channels"], side),
        "timestep=int64:2:0..999",
    )
    if (width := settings.get("cross_attention_dim")) is None:
        return inputs, {}, (((0, 2, 3), "batch and sides"), ((0,), "batch"))
    width = width[0] if isinstance(width, (list, tuple)) else width
    inputs += (f"encoder_hidden_states=2,{_TEXT},{width}",)
    batch = {"timestep": (0,), "encoder_hidden_states": (0, 1)}
    ways = (
        ({"sample": (0, 2, 3), **batch}, "batch, sides and length of the text"),
        ({"sample": (0,), **batch}, "batch and length of the text"),
        ((0,), "batch"),
    )
    return inputs, {}, ways


def _autoencoder(settings: Mapping[str, Any]) -> _Call:
    side = _side(settings, len(settings["block_out_channels"]) - 1)
    ways = (((0, 2, 3), "batch and sides"), ((0,), "batch"))
    return (_sized("sample", settings["in_channels"], side),), {}, ways


# Class -> what gives its example call of its settings; those of others have to be given.
_INPUTS: dict[str, Callable[[Mapping[str, Any]], _Call]] = {
    "AutoencoderKL": _autoencoder,
    "AutoencoderTiny": _autoencoder,
    "UNet2DConditionModel": _unet,
    "UNet2DModel": _unet,
    "VQModel": _autoencoder,
}
