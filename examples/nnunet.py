"""Segment a NIfTI file with results of nnU-Net: ``nnunet.py FOLDER image.nii.gz mask.nii.gz``.

What is done to the image is what nnU-Net's ``DefaultPreprocessor`` does, but for resampling: an
image of another spacing than the plans' is refused. Needs ``pip install 'mlxport[nnunet,nifti]'``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np

import mlxport


def main() -> None:
    """Convert a fold, run it over the image patch by patch, and write the mask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of a fold, or its checkpoint")
    parser.add_argument("image", type=Path, help="NIfTI, of one channel")
    parser.add_argument("mask", type=Path, help="to write")
    given = parser.parse_args()
    image: Any = nibabel.load(given.image)
    with TemporaryDirectory() as temporary:
        out = Path(temporary) / "out"
        result = mlxport.convert_checkpoint(given.folder, out)
        if result.report is None or not result.report.passed:
            raise SystemExit(3)
        print(result.report.verdict)
        plan = json.loads((out / "preprocessing.json").read_text())
        mask = segmented(mlxport.load(out), image, plan)
    nibabel.save(nibabel.Nifti1Image(mask, image.affine), given.mask)
    print(f"{mask.shape}, {np.count_nonzero(mask)} voxels labelled: {given.mask}")


def segmented(model: Any, image: Any, plan: Mapping[str, Any]) -> np.ndarray:
    """Return the label of each voxel, in the axes of the file.

    Args:
        model: of ``(1, 1, *patch)`` to ``(1, classes, *patch)``.
        image: as nibabel loads it, with three axes.
        plan: what ``preprocessing.json`` holds.
    """
    # nnU-Net's readers give z, y, x; the plans may turn the axes once more
    order = [2 - axis for axis in plan.get("transpose_forward", (0, 1, 2))]
    spacing = np.array(image.header.get_zooms())[order]
    if not np.allclose(spacing, plan["spacing"], rtol=1e-3):
        raise SystemExit(f"the image has spacing {spacing}, the plans {plan['spacing']}: resample")
    if any(isinstance(label, list) for label in plan["labels"].values()):
        raise SystemExit("the plans have regions, not labels")
    volume = image.get_fdata(dtype=np.float32).transpose(order)
    inside = np.nonzero(volume)
    if not inside[0].size:
        raise SystemExit("the image is zero everywhere")
    box = tuple(slice(at.min(), at.max() + 1) for at in inside)
    patches = normalised(volume[box], plan)[None]
    mirror = plan["inference_allowed_mirroring_axes"] or ()
    scores = mlxport.sliding_window(model, patches, plan["patch_size"], mirror=mirror)
    labels: np.ndarray = np.zeros(volume.shape, np.uint8)
    labels[box] = scores.argmax(0)
    back: np.ndarray = labels.transpose(np.argsort(order))
    return back


def normalised(volume: np.ndarray, plan: Mapping[str, Any]) -> np.ndarray:
    """Return the volume as nnU-Net's ``ZScoreNormalization`` or ``CTNormalization`` gives it."""
    (scheme,), (masked,) = plan["normalization_schemes"], plan["use_mask_for_norm"]
    if scheme == "ZScoreNormalization" and not masked:
        whole: np.ndarray = (volume - volume.mean()) / max(float(volume.std()), 1e-8)
        return whole
    if scheme == "CTNormalization":
        known = plan["foreground_intensity_properties_per_channel"]["0"]
        clipped = volume.clip(known["percentile_00_5"], known["percentile_99_5"])
        scaled: np.ndarray = (clipped - known["mean"]) / max(known["std"], 1e-8)
        return scaled
    raise SystemExit(f"{scheme} (within a mask: {masked}) is not done here")


if __name__ == "__main__":
    main()
