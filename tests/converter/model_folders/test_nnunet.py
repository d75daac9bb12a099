"""Results as nnU-Net lays them out, with random weights: folds, checkpoints, plans old and new."""

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
from mlxport.converter.errors import CheckpointError
from mlxport.converter.model_folders.find_models import find_model, find_models
from mlxport.converter.model_folders.nnunet_plans import configuration_of, segmentation_heads

Run = Callable[[str], Result]

TRAINED = "nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres"
STRIDES = [[1, 1, 1], [1, 2, 2]]
KERNELS = [[1, 3, 3], [3, 3, 3]]
ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        **{"n_stages": 2, "features_per_stage": [4, 8], "kernel_sizes": KERNELS},
        **{"conv_op": "torch.nn.modules.conv.Conv3d", "strides": STRIDES, "conv_bias": True},
        **{"n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1]},
        **{"norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "dropout_op": None},
        **{"norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op_kwargs": None},
        **{"nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}
CONFIGURATION = {
    **{"patch_size": [16, 64, 64], "spacing": [1.0, 0.5, 0.5], "architecture": ARCHITECTURE},
    **{"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False]},
}
# the same network in the words of plans of before nnU-Net 2.4
OLD = {
    **{"UNet_class_name": "PlainConvUNet", "patch_size": [16, 64, 64]},
    **{"UNet_base_num_features": 4, "unet_max_num_features": 320, "conv_kernel_sizes": KERNELS},
    **{"pool_op_kernel_sizes": STRIDES, "n_conv_per_stage_encoder": [1, 1]},
    **{"n_conv_per_stage_decoder": [1]},
}
PLANS = {
    "dataset_name": "Dataset004_Hippocampus",
    "plans_name": "nnUNetPlans",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {"0": {"mean": 1.5, "std": 2.0}},
    "configurations": {
        "3d_fullres": CONFIGURATION,
        "3d_old": OLD,
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    },
}
DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "anterior": 1, "posterior": 2},
    "file_ending": ".nii.gz",
}


def network() -> torch.nn.Module:
    """What nnU-Net trains by these plans, with deep supervision."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    kwargs: dict[str, Any] = {
        **ARCHITECTURE["arch_kwargs"],  # type: ignore[dict-item]
        **{"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU},
    }
    made: nn.Module = PlainConvUNet(
        input_channels=1, num_classes=3, deep_supervision=True, **kwargs
    )
    return made


def save(*folds: str, trained: str = TRAINED, name: str = "checkpoint_final.pth") -> list[Any]:
    """Write results as nnUNetTrainer.save_checkpoint does, and return the trained networks."""
    folder = Path(trained)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    networks = []
    for fold in folds:
        (folder / fold).mkdir()
        networks.append(network())
        checkpoint = {
            "network_weights": networks[-1].state_dict(),
            "optimizer_state": torch.optim.SGD(networks[-1].parameters()).state_dict(),
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {
                **{"plans": PLANS, "configuration": folder.name.split("__")[2], "fold": fold},
                **{"dataset_json": DATASET, "unpack_dataset": True},
            },
            "trainer_name": folder.name.split("__")[0],
            "inference_allowed_mirroring_axes": (0, 1, 2),
        }
        torch.save(checkpoint, folder / fold / name)
    return networks


@pytest.mark.parametrize(
    "source", [TRAINED, f"{TRAINED}/fold_0", f"{TRAINED}/fold_0/checkpoint_final.pth"]
)
def test_trainer_fold_and_checkpoint_are_known(source: str) -> None:
    (trained,) = save("fold_0")
    found = find_model(Path(source))
    assert found is not None
    assert found.checkpoint == Path(TRAINED, "fold_0/checkpoint_final.pth")
    assert found.inputs == ("2,1,4,4,4",)
    assert found.dynamic[0] == (0, 2, 3, 4)
    assert found.opened[0] == "batch and patch, in steps of 1x2x2"
    said = (
        "nnU-Net PlainConvUNet, by plans.json; configuration 3d_fullres; without deep supervision"
    )
    assert found.summary() == said
    built = found.factory.build()
    assert built.state_dict().keys() == trained.state_dict().keys()
    assert built.decoder.deep_supervision is False


def test_all_folds_convert_at_once_by_one_plan(run: Run, readme: Callable[[str], str]) -> None:
    *_, trained = save("fold_0", "fold_1")
    result = run(readme("mlxport convert nnUNet_results/"))
    assert result.exit_code == 0, result.stderr
    first, understood, second, _ = result.stdout.splitlines()
    assert first.startswith("fold_0  converted              parity holds  ")
    assert second.startswith("fold_1  by the plan of fold_0  parity holds  ")
    assert understood.startswith(
        "    nnU-Net PlainConvUNet, by plans.json; configuration 3d_fullre"
    )
    assert json.loads(Path("out/parity.json").read_text()).keys() == {"fold_0", "fold_1"}
    kept = json.loads(Path("out/fold_1/preprocessing.json").read_text())
    assert kept["configuration"] == "3d_fullres"
    assert kept["spacing"] == [1.0, 0.5, 0.5]
    assert kept["patch_size"] == [16, 64, 64]
    assert kept["labels"] == DATASET["labels"]
    assert kept["inference_allowed_mirroring_axes"] == [0, 1, 2]
    x = torch.randn(1, 1, 5, 12, 6)
    trained.decoder.deep_supervision = False
    with torch.no_grad():
        want = trained.eval()(x)
    got = mlxport.load("out/fold_1")(mx.array(x.numpy()))
    np.testing.assert_allclose(np.array(got), want, atol=1e-4)


def test_all_folds_are_found_at_once() -> None:
    save("fold_0", "fold_1", "fold_all")
    found = find_models(Path(TRAINED))
    assert list(found) == ["fold_0", "fold_1", "fold_all"]
    assert len({one.architecture for one in found.values()}) == 1


def test_the_best_is_taken_where_training_did_not_end() -> None:
    save("fold_0", name="checkpoint_best.pth")
    found = find_model(Path(TRAINED))
    assert found is not None
    assert found.checkpoint.name == "checkpoint_best.pth"


def test_old_plans_say_the_same_network() -> None:
    old = configuration_of(PLANS, "3d_old", Path("plans.json"))["architecture"]
    assert old["network_class_name"] == ARCHITECTURE["network_class_name"]
    assert old["arch_kwargs"] == ARCHITECTURE["arch_kwargs"]


def test_a_cascade_takes_the_labels_of_the_stage_before_it() -> None:
    save("fold_0", trained=TRAINED.replace("3d_fullres", "3d_cascade_fullres"))
    found = find_model(Path(TRAINED.replace("3d_fullres", "3d_cascade_fullres")))
    assert found is not None
    assert found.inputs == ("2,3,4,4,4",)


LABELS = {
    "labels": ({"background": 0, "a": 1, "b": 2}, 3),
    "one to ignore": ({"background": 0, "a": 1, "ignore": 2}, 2),
    "regions": ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}, 3),
}


@pytest.mark.parametrize(("labels", "heads"), LABELS.values(), ids=LABELS)
def test_heads_are_one_a_label_or_one_a_region(labels: dict[str, Any], heads: int) -> None:
    assert segmentation_heads({"labels": labels}, Path("dataset.json")) == heads


# -- what is refused -------------------------------------------------------------------------------


def test_another_trainer_may_build_another_network() -> None:
    trained = TRAINED.replace("nnUNetTrainer", "nnUNetTrainerReLU")
    save("fold_0", trained=trained)
    with pytest.raises(CheckpointError, match="trained by nnUNetTrainerReLU, which may build an"):
        find_models(Path(trained))


@pytest.mark.parametrize("name", ["nnUNetTrainer_250epochs", "nnUNetTrainer_8epochs_NoMirroring"])
def test_trainers_that_leave_the_network_alone_are_known(name: str) -> None:
    trained = TRAINED.replace("nnUNetTrainer", name)
    save("fold_0", trained=trained)
    assert find_models(Path(trained))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("nonlin",), "os.system", "names 'os.system', which is not of torch.nn, and is not run"),
        (("nonlin",), "torch.nn.init.eye_", "names 'torch.nn.init.eye_', and there is no such"),
        ((), "builtins.exec", "which is not of dynamic_network_architectures"),
        ((), "dynamic_network_architectures.nets.No", "and there is no such class"),
    ],
    ids=["a function", "no class", "a network elsewhere", "an unknown network"],
)
def test_plans_name_classes_of_networks_alone(path: Any, value: str, said: str) -> None:
    save("fold_0")
    file = Path(TRAINED, "plans.json")
    plans = json.loads(file.read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    if path:
        architecture["arch_kwargs"][path[0]] = value
    else:
        architecture["network_class_name"] = value
    file.write_text(json.dumps(plans))
    found = find_model(Path(TRAINED))
    assert found is not None
    with pytest.raises(CheckpointError) as caught:
        found.factory.build()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("plans.json", {}, "no configuration 3d_fullres; there are none"),
        ("plans.json", {"configurations": {"3d_fullres": {}}}, "neither an architecture nor a U-"),
        (
            "plans.json",
            {"configurations": {"3d_fullres": {"inherits_from": "3d_fullres"}}},
            "no configuration 3d_fullres that inherits from 3d_fullres",
        ),
        ("dataset.json", {"labels": DATASET["labels"]}, "no channel_names"),
        ("dataset.json", {"channel_names": {"0": "CT"}}, "no labels with a background"),
    ],
    ids=["no plans", "no network", "a circle", "no channels", "no labels"],
)
def test_damaged_descriptions_are_told(name: str, data: Any, said: str) -> None:
    save("fold_0")
    Path(TRAINED, name).write_text(json.dumps(data))
    with pytest.raises(CheckpointError) as caught:
        find_models(Path(TRAINED))
    assert said in str(caught.value)


def test_a_folder_of_several_results_names_them() -> None:
    save("fold_0")
    with pytest.raises(CheckpointError, match=f"\n  {TRAINED}\nName the one that is meant"):
        find_models(Path(TRAINED).parent)


def test_results_without_a_fold_are_told() -> None:
    save()
    with pytest.raises(CheckpointError, match="without a fold"):
        find_models(Path(TRAINED))


def test_a_missing_library_is_named_with_its_extra(without: Callable[[str], None]) -> None:
    save("fold_0")
    without("dynamic_network_architectures")
    with pytest.raises(CheckpointError, match=r"pip install 'mlxport\[nnunet\]'"):
        find_models(Path(TRAINED))
