"""Folders as timm writes them for the Hugging Face Hub: ``architecture`` in ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlxport.converter.model_folders.found_model import (
    CONFIG,
    FoundModel,
    built,
    library,
    read_description,
)
from mlxport.converter.torch_model.factory import Factory


def timm_model(source: Path) -> Mapping[str, FoundModel]:
    """Return the model of a folder whose configuration names one of timm's architectures.

    Raises:
        CheckpointError: timm is missing, or does not know the architecture.
    """
    if not (source / CONFIG).is_file():
        return {}
    config = read_description(source / CONFIG)
    name = config.get("architecture")
    if not isinstance(name, str):
        return {}
    described = f"the model {name} of timm"
    timm: Any = library("timm", "timm", described, source)

    def build() -> Any:
        # timm reads the folder's config.json itself: arguments, classes, pooling
        return built(described, source, lambda: timm.create_model(f"local-dir:{source}"))

    # settings of the trained weights lie deeper where a newer timm wrote them
    trained = config.get("pretrained_cfg")
    settings = {**config, **(trained if isinstance(trained, dict) else {})}
    shape = ",".join(map(str, (2, *_input_size(settings, config.get("model_args")))))
    found = FoundModel(
        checkpoint=source,
        description=source / CONFIG,
        factory=Factory(f"timm {name}", build),
        inputs=(shape,),
        dynamic=((0,),),
        opened=("batch",),
        architecture=json.dumps(config, sort_keys=True),
    )
    return {"": found}


def _input_size(settings: Mapping[str, Any], arguments: Any) -> tuple[int, ...]:
    """Return channels, height and width, by the arguments of the model before its training's."""
    channels, *sides = settings.get("input_size") or (3, 224, 224)
    given = arguments if isinstance(arguments, dict) else {}
    sides = given.get("img_size", sides)
    sides = sides if isinstance(sides, (list, tuple)) else (sides, sides)
    return (given.get("in_chans", channels), *sides)
