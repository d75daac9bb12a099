"""Bundles of MONAI: ``network_def`` in ``configs/inference.json``, weights in ``models/model.pt``.

MONAI runs what stands behind a ``$`` in a configuration. A bundle is a stranger's file: here
literals and references are read, and classes of ``monai.networks`` built; all else is refused.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlxport.converter.errors import CheckpointError
from mlxport.converter.model_folders.found_model import (
    FoundModel,
    built,
    by_hand,
    is_class_of,
    library,
    read_description,
)
from mlxport.converter.torch_model.factory import Factory

_logger = logging.getLogger(__name__)

_CONFIGS = ("inference.json", "inference.yaml", "inference.yml")
_WEIGHTS = Path("models", "model.pt")
_NETWORK = "network_def"
_DEEPEST = 32  # of references to references
# keys of MONAI that say how a component is built, not with what
_OF_MONAI = ("_target_", "_requires_", "_disabled_", "_desc_", "_mode_")
# arguments of networks that say which weights they begin with -> none
_BEGINS_WITH = {"pretrained": False, "pretrained_url": None, "weights": None, "checkpoint": None}


def monai_model(source: Path) -> Mapping[str, FoundModel]:
    """Return the network of a bundle.

    Raises:
        CheckpointError: MONAI is missing, the configuration is damaged, or computes what the
            network is built with.
    """
    config = next((c for name in _CONFIGS if (c := source / "configs" / name).is_file()), None)
    if config is None:
        return {}
    data = _read(config)
    if _NETWORK not in data:
        return {}
    settings = _Settings(data, config)
    network = settings.value(data[_NETWORK], _NETWORK)
    if not isinstance(network, dict) or not isinstance(network.get("_target_"), str):
        raise CheckpointError(f"{config}: {_NETWORK} names no _target_. {by_hand(source)}")
    name = network["_target_"].rpartition(".")[2]
    described = f"the network {name} of MONAI"
    library("monai", "monai", described, source)
    cls = _located(network["_target_"], config)
    arguments = {key: value for key, value in network.items() if key not in _OF_MONAI}
    arguments |= _without_weights(cls, arguments)
    found = FoundModel(
        checkpoint=source / _WEIGHTS,
        description=config,
        factory=Factory(
            f"MONAI {name}", lambda: built(described, source, lambda: cls(**arguments))
        ),
        inputs=_inputs(source, cls, arguments),
        dynamic=_ways(arguments),
        opened=("batch and patch", "batch") if len(_ways(arguments)) > 1 else ("batch",),
        architecture=json.dumps(network, sort_keys=True, default=repr),
    )
    return {"": found}


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        return read_description(path)
    yaml: Any = library("yaml", "monai", "a configuration in YAML", path)
    data = built("the configuration", path, lambda: yaml.safe_load(path.read_text("utf-8")))
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a mapping, got {type(data).__name__}")
    return data


class _Settings:
    """The values of a configuration, with references followed and nothing computed."""

    def __init__(self, data: Mapping[str, Any], path: Path) -> None:
        self.data = data
        self.path = path

    def value(self, given: Any, at: str, depth: int = 0) -> Any:
        """Return a value without references.

        Args:
            given: as it stands in the configuration.
            at: where, for messages.
            depth: of references so far.

        Raises:
            CheckpointError: it is computed, or a reference leads nowhere.
        """
        if depth > _DEEPEST:
            raise CheckpointError(f"{self.path}: {at} refers to itself")
        if isinstance(given, dict):
            return {key: self.value(one, f"{at}::{key}", depth + 1) for key, one in given.items()}
        if isinstance(given, list):
            return [self.value(one, f"{at}::{i}", depth + 1) for i, one in enumerate(given)]
        if not isinstance(given, str) or given[:1] not in ("$", "@", "%"):
            return given
        text = given.removeprefix("$").strip()
        if text.startswith("@") and text[1:].replace("::", "").replace("#", "").isidentifier():
            return self.value(self._referred(text[1:], at), at, depth + 1)
        try:
            if given[0] == "$":
                return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            _logger.debug("%s is no literal: %s", at, error)
        raise CheckpointError(
            f"{self.path}: {at} is computed, by {given!r}. MONAI runs that as Python; of a file "
            f"from elsewhere it is not run here. Write its value there. {by_hand(self.path)}"
        )

    def _referred(self, name: str, at: str) -> Any:
        value: Any = self.data
        for part in name.replace("#", "::").split("::"):
            key = int(part) if isinstance(value, list) and part.isdigit() else part
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise CheckpointError(
                    f"{self.path}: {at} refers to {name}, which is not there"
                ) from error
        return value


def _located(target: str, config: Path) -> Any:
    """Return the class of a network, of ``monai.networks`` alone."""
    import torch

    module_name, _, attribute = target.rpartition(".")
    module_name = module_name or "monai.networks.nets"
    found = None
    if module_name == "monai.networks" or module_name.startswith("monai.networks."):
        try:
            found = getattr(importlib.import_module(module_name), attribute, None)
        except ImportError as error:
            _logger.debug("%s is not there: %s", target, error)
    if not is_class_of(found, torch.nn.Module):
        raise CheckpointError(
            f"{config}: the network is {target!r}, which is no class of monai.networks, and is "
            f"not run. {by_hand(config)}"
        )
    return found


def _without_weights(cls: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that keep a network from fetching or reading weights as it is built.

    The bundle's own take the place of whatever it would begin with.
    """
    takes = inspect.signature(cls.__init__).parameters
    return {name: none for name, none in _BEGINS_WITH.items() if name in takes or name in arguments}


def _inputs(source: Path, cls: Any, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return an example of two images, by the metadata of the bundle or the network's arguments.

    Nothing where neither says how many channels and sides they have.
    """
    image = _image(source)
    takes = inspect.signature(cls.__init__).parameters
    defaults = {p.name: p.default for p in takes.values() if p.default is not p.empty}
    given = {**defaults, **arguments}
    dimensions = given.get("spatial_dims", given.get("dimensions"))
    channels = image.get("num_channels", given.get("in_channels"))
    if not (isinstance(dimensions, int) and isinstance(channels, int)):
        return ()
    if isinstance(size := given.get("img_size", given.get("input_size")), (list, tuple, int)):
        sides = list(size) if isinstance(size, (list, tuple)) else [size] * dimensions
    elif (strides := given.get("strides")) is not None:
        sides = [2 * step for step in _reduced(strides, dimensions)]
    else:
        shape = image.get("spatial_shape", ())
        fixed = len(shape) == dimensions and all(isinstance(side, int) for side in shape)
        sides = list(shape) if fixed else [32] * dimensions
    return (",".join(map(str, (2, channels, *sides))),)


def _image(source: Path) -> Mapping[str, Any]:
    """Return what the metadata says of the one image that the network takes."""
    path = source / "configs" / "metadata.json"
    data: Any = read_description(path) if path.is_file() else {}
    for key in ("network_data_format", "inputs"):
        data = data.get(key) if isinstance(data, dict) else None
    images = list(data.values()) if isinstance(data, dict) else []
    return images[0] if len(images) == 1 and isinstance(images[0], dict) else {}


def _reduced(strides: Any, dimensions: int) -> list[int]:
    """Return by how much a network's strides make each side smaller."""
    each = [s if isinstance(s, (list, tuple)) else [s] * dimensions for s in strides]
    return [math.prod(step[axis] for step in each) for axis in range(dimensions)]


def _ways(arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what to open: sides are fixed where the network is built for some."""
    if "img_size" in arguments or "input_size" in arguments:
        return ((0,),)
    dimensions = arguments.get("spatial_dims", arguments.get("dimensions", 3))
    return ((0, *range(2, 2 + dimensions)), (0,)) if isinstance(dimensions, int) else ((0,),)
