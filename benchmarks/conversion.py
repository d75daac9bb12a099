"""What a conversion takes, beside torch.export alone and reading and writing the weights."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from timing import Table

import mlxport
from mlxport.converter import api
from mlxport.examples.unet3d import UNet3d

WIDTHS = (128, 256, 512, 1024)
SIZES = (1, 1, 16, 16, 16)


def tables() -> list[Table]:
    """Measure everything."""
    torch.manual_seed(0)
    model = UNet3d(widths=WIDTHS).eval()
    count = sum(parameter.numel() for parameter in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "checkpoint.safetensors")
        save_file(model.state_dict(), checkpoint)
        took: dict[str, float] = {}
        took["torch.export"] = _seconds(lambda: torch.export.export(model, (torch.zeros(SIZES),)))
        copy = Path(folder, "copy.safetensors")
        took["read and write the weights"] = _seconds(
            lambda: save_file({k: v.clone() for k, v in load_file(checkpoint).items()}, copy)
        )
        took["convert, without parity"] = _seconds(
            lambda: mlxport.convert(model, torch.zeros(SIZES), verify=False)
        )
        took["mlxport convert, whole"] = _seconds(
            lambda: api.convert_checkpoint(
                checkpoint, Path(folder, "out"), model=model, inputs=["1,1,16,16,16"]
            )
        )
    text = f"A 3-D U-Net of {count / 1e6:.0f} million parameters, float32, seconds, once each."
    rows = [[name, f"{seconds:.2f}"] for name, seconds in took.items()]
    return [Table("Conversion", text, ["step", "s"], rows)]


def _seconds(run: object) -> float:
    begun = time.perf_counter()
    run()  # type: ignore[operator]
    return time.perf_counter() - begun
