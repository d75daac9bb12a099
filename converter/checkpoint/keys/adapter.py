"""Read a LoRA adapter as PEFT saves it: what it adds to which layers, and what it replaces.

``adapter_config.json`` and ``adapter_model.safetensors`` (or ``.bin``) in one folder, as PEFT 0.21
writes and reads them. Needs no torch but for ``.bin``.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, first_names, printable
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.errors import CheckpointError, ConversionError, StateDictError
from mlxport.converter.plan.json_data import read_json
from mlxport.converter.plan.low_rank import matrices_of
from mlxport.converter.plan.tensor import TensorSpec

_logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_MODEL = "adapter_model.safetensors"
# What stands before every key: the path of the base within PEFT's own model.
ADAPTER_PREFIX = "base_model.model."

_PART = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.(?:weight|bias)|lora_embedding_[AB])")
# Options that change what an adapter computes -> what to call them.
_OTHER_KINDS = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "kasa_config": "KaSA",
    "layer_replication": "replicated layers",
    "target_parameters": "adapters of single parameters",
    "trainable_token_indices": "trained tokens",
}
# Options that are read here, or that change nothing in what a saved adapter computes.
_KNOWN = {
    *("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern"),
    *("alpha_pattern", "target_modules", "exclude_modules", "modules_to_save", "bias"),
    *("fan_in_fan_out", "lora_bias", "init_lora_weights", "layers_to_transform", "layers_pattern"),
    *("base_model_name_or_path", "revision", "task_type", "inference_mode", "auto_mapping"),
    *("peft_version", "megatron_config", "megatron_core", "loftq_config", "eva_config"),
    *("corda_config", "lora_ga_config", "runtime_config", "qalora_group_size"),
    *("ensure_weight_tying",),
}
# How the matrices may have begun; all other ways change the base as well.
_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")
_MERGE = (
    "Merge it in PyTorch, PeftModel.from_pretrained(model, folder).merge_and_unload(), and save "
    "the state dict of that."
)


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one layer: ``scale · lora_B(lora_A(dropout(x)))``.

    Attributes:
        scale: ``lora_alpha / r``, with rank-stabilised LoRA ``lora_alpha / sqrt(r)``.
        dropout: the share of inputs that are dropped in training.
        keys: part (``"lora_A.weight"``) -> key in the file.
    """

    scale: float
    dropout: float
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        path: its folder.
        config_text: its ``adapter_config.json``, as it stands there.
        checkpoint: its tensors.
        layers: path of a layer of the base -> what it adds there.
        replaced: key of the base's state dict -> key in the file of what stands in its place.
    """

    path: Path
    config_text: str
    checkpoint: Checkpoint
    layers: Mapping[str, LowRank]
    replaced: Mapping[str, str]


def open_adapter(path: str | Path) -> Adapter:
    """Open a folder that PEFT saved a LoRA adapter in; reads no weights.

    Raises:
        CheckpointError: a file is missing or damaged, the adapter is of another kind, or its
            configuration and its tensors contradict each other; all problems are listed.
    """
    folder = Path(path)
    try:
        text = (folder / ADAPTER_CONFIG).read_text(encoding="utf-8")
        config = read_json(folder / ADAPTER_CONFIG)
    except (OSError, ValueError, ConversionError) as error:
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG} cannot be read: {error}. An adapter is a folder as PEFT's "
            "save_pretrained writes it."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / ADAPTER_CONFIG}: expected a JSON object")
    if kinds := list(_other_kinds(config)):
        raise CheckpointError.listing(
            f"{folder}: this adapter is not one of LoRA alone:", kinds, _MERGE
        )
    checkpoint = open_checkpoint(_weights_of(folder))
    try:
        layers, replaced, problems = _read(config, checkpoint.specs)
    except re.error as error:
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG}: {error.pattern!r} is no regular expression: {error}"
        ) from error
    problems = [*(f"{printable(key)} is no tensor" for key in checkpoint.others), *problems]
    if problems:
        raise CheckpointError.listing(
            f"{folder}: {ADAPTER_CONFIG} and the tensors do not go together:", problems
        )
    return Adapter(folder, text, checkpoint, layers, replaced)


def base_and_adapter(base: Checkpoint, adapter: Checkpoint) -> Checkpoint:
    """Return the tensors of a base and its adapter, with all else that is known of the base.

    Raises:
        StateDictError: both have one key.
    """
    if both := [key for key in adapter.tensors if key in base.tensors]:
        raise StateDictError(
            f"checkpoint and adapter both have {first_names(both)}: the checkpoint is not the base"
        )
    return replace(
        base,
        tensors={**base.tensors, **adapter.tensors},
        storage={**base.storage, **adapter.storage},
        mapped=(*base.mapped, *adapter.mapped),
        found={**base.found, **adapter.found},
    )


def check_alike(config_text: str, specs: Mapping[str, TensorSpec], adapter: Adapter) -> None:
    """Find out whether an adapter can take the place of another that a model was made with.

    Args:
        config_text: the other's ``adapter_config.json``.
        specs: key in the other's file -> dtype and shape of its tensor.
        adapter: the one to take its place.

    Raises:
        StateDictError: it has other tensors, or scales or drops otherwise; all differences are
            listed.
    """
    layers = _read(json.loads(config_text), specs)[0]
    found = adapter.checkpoint.specs
    problems = [f"{printable(key)} is missing" for key in specs if key not in found]
    problems += [f"{printable(key)} is unexpected" for key in found if key not in specs]
    problems += [
        f"{printable(key)}: expected {spec.shape}, got {found[key].shape}"
        for key, spec in specs.items()
        if key in found and spec.shape != found[key].shape
    ]
    for path, old in layers.items():
        new = adapter.layers.get(path, old)
        problems += [
            f"{printable(path)}: expected {name} {wanted:g}, got {given:g}"
            for name, wanted, given in (
                ("scale", old.scale, new.scale),
                ("dropout", old.dropout, new.dropout),
            )
            if wanted != given
        ]
    if problems:
        raise StateDictError.listing(
            f"{adapter.path}: the plan was made with another adapter than this:",
            problems,
            f"Convert with {argument('model')} and {argument('adapter')}.",
        )


def _weights_of(folder: Path) -> Path:
    for name in (ADAPTER_MODEL, "adapter_model.bin"):
        if (folder / name).exists():
            return folder / name
    raise CheckpointError(f"{folder}: there is no {ADAPTER_MODEL} and no adapter_model.bin")


def _other_kinds(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an adapter is besides LoRA, one line each."""
    if (kind := config.get("peft_type")) != "LORA":
        yield f"peft_type is {kind!r}, and LORA is what is known"
        return
    for name, value in config.items():
        if name in _OTHER_KINDS and value:
            yield f"{name}={value!r}: {_OTHER_KINDS[name]}"
        elif name not in _KNOWN and name not in _OTHER_KINDS and value:
            yield f"{name}={value!r}, which is not known"
    if (begun := config.get("init_lora_weights", True)) not in _BEGINNINGS:
        yield f"init_lora_weights={begun!r}: it may have changed the base's weights, too"


def _read(
    config: Mapping[str, Any], specs: Mapping[str, TensorSpec]
) -> tuple[dict[str, LowRank], dict[str, str], list[str]]:
    """Return the layers, the keys of the base that are replaced, and what is wrong."""
    parts: dict[str, dict[str, str]] = {}
    replaced: dict[str, str] = {}
    problems: list[str] = []
    for key in specs:
        if not key.startswith(ADAPTER_PREFIX):
            problems.append(f"{printable(key)} does not begin with {ADAPTER_PREFIX}")
        elif match := _PART.fullmatch(name := key.removeprefix(ADAPTER_PREFIX)):
            parts.setdefault(match[1], {})[match[2]] = key
        elif ".lora_" in name:
            problems.append(f"{printable(key)} is no tensor of LoRA")
        else:
            replaced[name.replace(".base_layer.", ".")] = key
    layers = {}
    for path, keys in parts.items():
        try:
            layers[path] = _low_rank(config, path, keys, specs)
        except CheckpointError as error:
            problems.append(f"{printable(path)}: {error}")
    return layers, replaced, problems


def _low_rank(
    config: Mapping[str, Any], path: str, keys: Mapping[str, str], specs: Mapping[str, TensorSpec]
) -> LowRank:
    pair = matrices_of(keys)
    if missing := [part for part in pair if part not in keys]:
        raise CheckpointError(f"there is no {' and no '.join(missing)}")
    if not _targets(config, path):
        raise CheckpointError("target_modules do not name it, so PEFT would leave it out")
    rank = _of_pattern(config, "rank_pattern", path, "r", 8)
    alpha = _of_pattern(config, "alpha_pattern", path, "lora_alpha", 8)
    dropout = config.get("lora_dropout") or 0.0
    if not isinstance(rank, int) or rank < 1 or not _is_number(alpha) or not _is_number(dropout):
        raise CheckpointError(f"r={rank!r}, lora_alpha={alpha!r}, lora_dropout={dropout!r}")
    shape = specs[keys[pair[0]]].shape
    if len(shape) < 2 or rank not in shape[:2]:
        raise CheckpointError(f"{pair[0]} is {shape}, and its rank is to be {rank}")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LowRank(float(scale), float(dropout), dict(keys))


def _is_number(value: Any) -> bool:
    # an integer of JSON may be larger than any float
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max


def _of_pattern(
    config: Mapping[str, Any], patterns: str, path: str, otherwise: str, default: int
) -> Any:
    """Return what the first pattern that fits the end of a path says, as PEFT looks it up."""
    given = config.get(patterns) or {}
    if not isinstance(given, dict):
        raise CheckpointError(f"{patterns} is {given!r}")
    fits = (value for key, value in given.items() if re.match(rf"(.*\.)?({key})$", path))
    return next(fits, config.get(otherwise, default))


def _targets(config: Mapping[str, Any], path: str) -> bool:
    """Tell whether a configuration means a module, by a regular expression or by endings."""
    targets = config.get("target_modules")
    if isinstance(targets, str):
        return targets == "all-linear" or re.fullmatch(targets, path) is not None
    if not isinstance(targets, list):
        return False
    return any(path == one or path.endswith(f".{one}") for one in targets)
