"""Results of nnU-Net (version 2): the network of the plans, by dynamic_network_architectures.

What plans, dataset and checkpoints hold is read as nnU-Net's ``plans_handler.py``,
``label_handling.py`` and ``get_network_from_plans.py`` read it. None of nnU-Net's code is needed.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlxport.converter.checkpoint.formats.recognise import recognise
from mlxport.converter.errors import CheckpointError
from mlxport.converter.model_folders.found_model import (
    FoundModel,
    built,
    by_hand,
    is_class_of,
    library,
    read_description,
)
from mlxport.converter.model_folders.nnunet_plans import (
    configuration_of,
    input_channels,
    preprocessing_of,
    segmentation_heads,
)
from mlxport.converter.torch_model.factory import Factory

_logger = logging.getLogger(__name__)

_PLANS, _DATASET = "plans.json", "dataset.json"
# what nnU-Net predicts with, then what it keeps besides
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
_PACKAGE = "dynamic_network_architectures"

# Trainers that change loss, schedule, augmentation or sampling, and never the network; others may
# build what the plans do not say, under the same names.
_TRAINERS = re.compile(
    r"nnUNetTrainer(V2)?"
    r"(_?\d+epochs?|_?NoMirroring|_onlyMirror01|NoDeepSupervision|NoDA|DA5(ord0)?|DAOrd0|_fasterDA"
    r"|_noDummy2DDA|CELoss|DiceLoss|DiceCELoss|FocalLoss|TopkLoss|_DASegOrd0|Adam(3en4)?|Adan|"
    r"VanillaAdam|CosAnneal|_warmup|_probabilisticOversampling\w*|_betterIgnoreSampling|"
    r"Benchmark_5epochs)*"
)


def nnunet_models(source: Path) -> Mapping[str, FoundModel]:
    """Return the network of each fold that was trained; of one fold or checkpoint the one.

    Args:
        source: a trainer's folder (``nnUNetTrainer__nnUNetPlans__3d_fullres``), a fold in it, or a
            checkpoint in that.

    Raises:
        CheckpointError: the plans are damaged or name another library's network, the trainer may
            build one that they do not say, or what builds it is missing.
    """
    if source.is_file():
        return {"": _model(source)} if _is_fold(source.parent) else {}
    if _is_fold(source):
        return {"": _model(_checkpoint_in(source))}
    if not (source / _PLANS).is_file() or not (source / _DATASET).is_file():
        trained = sorted(path.parent for path in source.glob("*/" + _PLANS) if "__" in str(path))
        if trained and not list(source.glob("*.json")):
            raise CheckpointError.listing(
                f"{source}: a folder of nnU-Net's results, with {len(trained)} in it:",
                [str(folder) for folder in trained],
                "Name the one that is meant.",
            )
        return {}
    folds = sorted(folder for folder in source.glob("fold_*") if folder.is_dir())
    if not folds:
        raise CheckpointError(
            f"{source}: plans of nnU-Net without a fold: expected folders fold_0, fold_1 … or "
            f"fold_all with {_CHECKPOINTS[0]} in them"
        )
    found = {folder.name: _model(_checkpoint_in(folder)) for folder in folds}
    return found if len(found) > 1 else {"": next(iter(found.values()))}


def _is_fold(folder: Path) -> bool:
    above = folder.resolve().parent
    return folder.resolve().name.startswith("fold_") and (above / _PLANS).is_file()


def _checkpoint_in(fold: Path) -> Path:
    """Return the checkpoint that nnU-Net would predict with."""
    for name in _CHECKPOINTS:
        if (fold / name).is_file():
            return fold / name
    raise CheckpointError(f"{fold}: a fold of nnU-Net without {', '.join(_CHECKPOINTS)}")


def _model(checkpoint: Path) -> FoundModel:
    """Return the network of a checkpoint, by the plans that lie above its fold."""
    trained = checkpoint.resolve().parents[1]
    plans, dataset = read_description(trained / _PLANS), read_description(trained / _DATASET)
    noted = _noted(checkpoint)
    trainer, name = _trainer_and_configuration(trained, noted)
    if not _TRAINERS.fullmatch(trainer):
        raise CheckpointError(
            f"{checkpoint}: trained by {trainer}, which may build another network than the plans "
            f"say, under the same names. {by_hand(checkpoint)}"
        )
    configuration = configuration_of(plans, name, trained / _PLANS)
    channels = input_channels(configuration, dataset, trained / _DATASET)
    heads = segmentation_heads(dataset, trained / _DATASET)
    architecture = configuration["architecture"]
    described = f"the network {architecture['network_class_name']} of nnU-Net's plans"
    library(_PACKAGE, "nnunet", described, checkpoint)
    arguments = {"input_channels": channels, "num_classes": heads}

    def build() -> Any:
        return built(
            described, checkpoint, lambda: _network(architecture, arguments, trained / _PLANS)
        )

    shape, dimensions = example_shape(configuration, channels), len(configuration["patch_size"])
    short = architecture["network_class_name"].rpartition(".")[2]
    axes = (0, *range(2, 2 + dimensions))
    return FoundModel(
        checkpoint=checkpoint,
        description=trained / _PLANS,
        factory=Factory(f"nnU-Net {short}", build),
        inputs=(",".join(map(str, shape)),),
        dynamic=(axes, (0,)),
        opened=(f"batch and patch, in steps of {_steps(configuration)}", "batch"),
        architecture=json.dumps([architecture, arguments], sort_keys=True),
        key="network_weights",
        beside={
            "preprocessing.json": preprocessing_of(
                plans, dataset, name, configuration, noted.get("inference_allowed_mirroring_axes")
            )
        },
        remarks=(f"configuration {name}", "without deep supervision"),
    )


def _noted(checkpoint: Path) -> Mapping[str, Any]:
    """Return what a checkpoint notes beside its tensors, read without running anything of it."""
    from mlxport.converter.checkpoint.formats.torch_file import load_torch_file

    loaded, _ = load_torch_file(checkpoint, recognise(checkpoint))
    return loaded if isinstance(loaded, dict) else {}


def _trainer_and_configuration(trained: Path, noted: Mapping[str, Any]) -> tuple[str, str]:
    """Return both, as the checkpoint notes them, or as nnU-Net names the folder.

    Raises:
        CheckpointError: neither says it, or they contradict each other.
    """
    parts = trained.name.split("__")
    by_name = (parts[0], parts[2]) if len(parts) == 3 else (None, None)
    arguments = noted.get("init_args")
    given = arguments.get("configuration") if isinstance(arguments, dict) else None
    by_note = (noted.get("trainer_name"), given)
    found = []
    for what, named, said in zip(("trainer", "configuration"), by_name, by_note, strict=True):
        one = said if isinstance(said, str) else named
        if one is None:
            raise CheckpointError(
                f"{trained}: which {what} it is of stands neither in the checkpoint nor in the "
                "folder's name, TRAINER__PLANS__CONFIGURATION"
            )
        found.append(one)
    return found[0], found[1]


def _network(architecture: Mapping[str, Any], arguments: Mapping[str, Any], plans: Path) -> Any:
    """Build the network as nnU-Net does, with classes of torch and of its architectures alone."""
    kwargs = dict(architecture["arch_kwargs"])
    for name in architecture.get("_kw_requires_import", ()):
        if kwargs.get(name) is not None:
            kwargs[name] = _located(kwargs[name], ("torch.nn",), plans)
    cls = _located(architecture["network_class_name"], (_PACKAGE,), plans)
    takes = inspect.signature(cls.__init__).parameters
    if "deep_supervision" in takes:
        kwargs["deep_supervision"] = False
    return cls(**arguments, **kwargs)


def _located(name: Any, packages: tuple[str, ...], plans: Path) -> Any:
    """Return the class that plans name, of these packages and no others.

    Raises:
        CheckpointError: it lies elsewhere, is not there, or is no class of a module.
    """
    import torch

    module_name, _, attribute = str(name).rpartition(".")
    within = any(module_name == one or module_name.startswith(f"{one}.") for one in packages)
    if not within:
        raise CheckpointError(
            f"{plans}: names {name!r}, which is not of {' or '.join(packages)}, and is not run"
        )
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except ImportError as error:
        _logger.debug("%s is not there: %s", name, error)
        found = None
    if found is None and packages == (_PACKAGE,):
        # plans of before the library moved its files name old ones
        unet = importlib.import_module(f"{_PACKAGE}.architectures.unet")
        found = getattr(unet, attribute, None)
    if not is_class_of(found, torch.nn.Module):
        raise CheckpointError(f"{plans}: names {name!r}, and there is no such class")
    return found


def _steps(configuration: Mapping[str, Any]) -> str:
    return "x".join(map(str, _strides(configuration)))


def _strides(configuration: Mapping[str, Any]) -> list[int]:
    """Return the product of the strides along each axis of the patch."""
    dimensions = len(configuration["patch_size"])
    strides = configuration["architecture"]["arch_kwargs"].get("strides", [])
    each = [s if isinstance(s, (list, tuple)) else [s] * dimensions for s in strides]
    return [math.prod(stride[axis] for stride in each) for axis in range(dimensions)]


def example_shape(configuration: Mapping[str, Any], channels: int) -> tuple[int, ...]:
    """Return the shape of an example: two patches, small ones, as their size is open.

    An instance norm needs more than one voxel, so each side is two of the smallest at least.
    """
    sides = [2 * stride if stride > 1 else 4 for stride in _strides(configuration)]
    return (2, channels, *sides)
