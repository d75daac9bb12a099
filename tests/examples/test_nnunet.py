"""From results of nnU-Net with random weights and a NIfTI file to the mask torch would give."""

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

from mlxport.examples import nnunet

STRIDES, KERNELS = [[1, 1, 1], [1, 2, 2]], [[1, 3, 3], [3, 3, 3]]
NETWORK = {
    **{"n_stages": 2, "features_per_stage": [4, 8], "kernel_sizes": KERNELS, "strides": STRIDES},
    **{"n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1], "conv_bias": True},
    **{"norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None},
    **{"nonlin_kwargs": {"inplace": True}, "dropout_op_kwargs": None},
}
OPS = {
    **{"conv_op": "torch.nn.Conv3d", "norm_op": "torch.nn.InstanceNorm3d"},
    **{"nonlin": "torch.nn.LeakyReLU"},
}
PLANS = {
    **{"dataset_name": "Dataset004_Hippocampus", "plans_name": "nnUNetPlans"},
    **{"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]},
    "configurations": {
        "3d_fullres": {
            **{"patch_size": [4, 8, 12], "spacing": [2.0, 1.0, 3.0]},
            **{"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False]},
            "architecture": {
                "network_class_name": f"{PlainConvUNet.__module__}.PlainConvUNet",
                "arch_kwargs": {**NETWORK, **OPS},
                "_kw_requires_import": [*OPS, "dropout_op"],
            },
        }
    },
}
DATASET = {
    **{"channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"},
    "labels": {"background": 0, "anterior": 1, "posterior": 2},
}


def trained(folder: Path) -> torch.nn.Module:
    """Write a fold as nnU-Net does, and return its network."""
    made: torch.nn.Module = PlainConvUNet(
        input_channels=1,
        num_classes=3,
        deep_supervision=False,
        conv_op=torch.nn.Conv3d,
        norm_op=torch.nn.InstanceNorm3d,
        nonlin=torch.nn.LeakyReLU,
        **NETWORK,
    )
    folder.mkdir(parents=True)
    (folder.parent / "plans.json").write_text(json.dumps(PLANS))
    (folder.parent / "dataset.json").write_text(json.dumps(DATASET))
    checkpoint = {
        **{"network_weights": made.state_dict(), "trainer_name": "nnUNetTrainer"},
        **{"init_args": {"configuration": "3d_fullres"}},
        **{"inference_allowed_mirroring_axes": None},
    }
    torch.save(checkpoint, folder / "checkpoint_final.pth")
    return made.eval()


def test_a_mask_is_what_torch_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = trained(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0")
    # x, y, z; within is one patch of y', z', x' = (4, 8, 12): what is outside of it is zero
    within = np.random.default_rng(0).normal(5, 2, (12, 4, 8)).astype(np.float32)
    volume = np.zeros((14, 7, 9), np.float32)
    volume[1:13, 2:6, 1:9] = within
    affine = np.diag([3.0, 2.0, 1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "image.nii.gz")
    fold = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0"
    words = ["nnunet.py", fold, tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    nnunet.main()
    assert capsys.readouterr().out.startswith("parity holds")

    given = torch.tensor((within - within.mean()) / within.std()).permute(1, 2, 0)
    with torch.inference_mode():
        labels = network(given[None, None])[0].argmax(0).permute(2, 0, 1).numpy()
    found = nibabel.load(tmp_path / "mask.nii.gz")
    expected = np.zeros(volume.shape)
    expected[1:13, 2:6, 1:9] = labels
    assert len(np.unique(labels)) == 3
    # a tie of scores may fall either way
    assert (np.asarray(found.dataobj) != expected).mean() < 1e-3
    assert np.array_equal(found.affine, affine)

    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "image.nii.gz")
    with pytest.raises(SystemExit, match="has spacing"):
        nnunet.main()
