"""What ``mlxport convert`` takes for networks with much to compute, or with large activations."""

from __future__ import annotations

import tempfile
from pathlib import Path

from conversion import Run, conversion, run_process, write_checkpoint
from timing import Table

NETWORKS = {
    "swinunetr": ("MONAI's SwinUNETR, 24 features, 96 x 96 x 96", "at most 60 s"),
    "efficientnet": ("ALIGN's EfficientNet, 600 x 600", "at most 2 GB, anonymous"),
}


def tables() -> list[Table]:
    """Convert each once."""
    text = (
        "One conversion each, parity included, in a process of its own on all cores, imports and "
        "making the model included. Anonymous memory is in no file; the system may drop the rest. "
        "Layer inputs beyond 256 MiB are in a temporary file."
    )
    head = ["network", "s", "s of the processor", "GB", "GB, anonymous", "target"]
    rows = [[title, *_measured(converted(name)), goal] for name, (title, goal) in NETWORKS.items()]
    return [Table("Conversion of large networks", text, head, rows)]


def converted(name: str) -> Run:
    """Convert one of them."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(name, folder)
        return run_process(conversion(name, checkpoint, Path(folder, "out")))


def _measured(run: Run) -> list[str]:
    anonymous = "-" if run.anonymous is None else f"{run.anonymous / 1e9:.2f}"
    return [f"{run.seconds:.0f}", f"{run.processor:.0f}", f"{run.peak / 1e9:.2f}", anonymous]
