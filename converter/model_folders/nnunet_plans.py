"""What the plans and the dataset of nnU-Net say: configuration, channels, labels, preprocessing.

Read as nnU-Net's ``plans_handler.py`` and ``label_handling.py`` read them. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlxport.converter.errors import CheckpointError

_UNET = "dynamic_network_architectures.architectures.unet."
# What is done to an image before the network sees it, and to its answer after.
_OF_PLANS = (
    *("dataset_name", "plans_name", "image_reader_writer", "transpose_forward"),
    *("transpose_backward", "foreground_intensity_properties_per_channel"),
)
_OF_CONFIGURATION = (
    *("spacing", "patch_size", "normalization_schemes", "use_mask_for_norm", "preprocessor_name"),
    *("resampling_fn_data", "resampling_fn_data_kwargs"),
    *("resampling_fn_probabilities", "resampling_fn_probabilities_kwargs", "previous_stage"),
)
_OF_DATASET = ("channel_names", "labels", "regions_class_order", "file_ending")


def configuration_of(plans: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Return a configuration of plans with what it inherits, and its architecture.

    Args:
        plans: as JSON data.
        name: of the configuration, ``"3d_fullres"``.
        path: of the plans, for messages.

    Raises:
        CheckpointError: there is no such configuration, or it does not say its network.
    """
    configurations = plans.get("configurations")
    configurations = configurations if isinstance(configurations, dict) else {}
    found: dict[str, Any] = {}
    seen: list[str] = []
    while name is not None:
        given = configurations.get(name)
        if name in seen or not isinstance(given, dict):
            chain = " that inherits from ".join([*seen, str(name)])
            raise CheckpointError(
                f"{path}: no configuration {chain}; there are {', '.join(configurations) or 'none'}"
            )
        found = {**given, **found}
        seen.append(name)
        name = given.get("inherits_from")  # type: ignore[assignment]
    if "architecture" not in found:
        found["architecture"] = _architecture_of_old_plans(found, path)
    architecture, patch = found["architecture"], found.get("patch_size")
    is_one = isinstance(architecture, dict) and isinstance(architecture.get("arch_kwargs"), dict)
    if not (is_one and isinstance(architecture.get("network_class_name"), str) and patch):
        raise CheckpointError(f"{path}: configuration {seen[0]} does not say its network and patch")
    return found


def _architecture_of_old_plans(configuration: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the network of plans of before nnU-Net 2.4, which say it in other words."""
    name = configuration.get("UNet_class_name")
    if name not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise CheckpointError(
            f"{path}: the configuration names neither an architecture nor a U-Net: got {name!r}"
        )
    try:
        stages = len(configuration["n_conv_per_stage_encoder"])
        base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
        dimensions = len(configuration["patch_size"])
        blocks = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
        kwargs = {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**i, most) for i in range(stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            blocks: configuration["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
    except KeyError as error:
        raise CheckpointError(f"{path}: the configuration lacks {error}") from error
    needed = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    return {
        "network_class_name": _UNET + name,
        "arch_kwargs": kwargs,
        "_kw_requires_import": needed,
    }


def labels_of(dataset: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the labels of a dataset but the one to ignore.

    Raises:
        CheckpointError: there are none.
    """
    labels = dataset.get("labels")
    if not isinstance(labels, dict) or "background" not in labels:
        raise CheckpointError(f"{path}: no labels with a background in it")
    return {name: label for name, label in labels.items() if name != "ignore"}


def all_labels(labels: Mapping[str, Any]) -> list[int]:
    """Return the numbers of all labels, in order."""
    numbers = (label if isinstance(label, list) else [label] for label in labels.values())
    return sorted({int(number) for each in numbers for number in each})


def segmentation_heads(dataset: Mapping[str, Any], path: Path) -> int:
    """Return how many channels the network gives: one a label, or one a region.

    Raises:
        CheckpointError: the dataset has no labels.
    """
    labels = labels_of(dataset, path)
    if any(isinstance(label, list) and len(label) > 1 for label in labels.values()):
        return sum(label not in (0, [0]) for label in labels.values())
    return len(all_labels(labels))


def input_channels(configuration: Mapping[str, Any], dataset: Mapping[str, Any], path: Path) -> int:
    """Return how many channels the network takes: one an image, and one a label in a cascade.

    Raises:
        CheckpointError: the dataset names no channels.
    """
    channels = dataset.get("modality", dataset.get("channel_names"))
    if not isinstance(channels, dict):
        raise CheckpointError(f"{path}: no channel_names")
    if configuration.get("previous_stage") is None:
        return len(channels)
    return len(channels) + sum(number != 0 for number in all_labels(labels_of(dataset, path)))


def preprocessing_of(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    name: str,
    configuration: Mapping[str, Any],
    mirroring: Any,
) -> dict[str, Any]:
    """Return what is done to an image before the network sees it, and to its answer after.

    Args:
        plans: as JSON data.
        dataset: as JSON data.
        name: of the configuration.
        configuration: with what it inherits.
        mirroring: the axes that may be mirrored, counted from the first of the patch.
    """
    mirrored = [int(axis) for axis in mirroring] if isinstance(mirroring, (list, tuple)) else None
    return {
        "configuration": name,
        **{key: plans[key] for key in _OF_PLANS if key in plans},
        **{key: configuration[key] for key in _OF_CONFIGURATION if key in configuration},
        **{key: dataset[key] for key in _OF_DATASET if key in dataset},
        "inference_allowed_mirroring_axes": mirrored,
    }
