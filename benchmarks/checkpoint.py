"""Converting a large checkpoint by a plan: time beside copying the file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from timing import Table, times

import mlxport

LAYERS = 24
WEIGHT = (256, 256, 3, 3, 5)  # 11.8 MB of float32 each
SHARD = "100MB"

CONVERT = """
import json, sys, time
from mlxport.converter import api
import mlx.core as mx
from mlxport.converter import conversion, transfer
begun = time.perf_counter()
api.convert_checkpoint(sys.argv[1], sys.argv[2], plan=sys.argv[3], max_shard_size=sys.argv[4])
took = time.perf_counter() - begun
print(json.dumps(took))
"""


def network(layers: int) -> torch.nn.Sequential:
    """Convolutions and transposed ones, in turn."""
    kinds = (torch.nn.Conv3d, torch.nn.ConvTranspose3d)
    return torch.nn.Sequential(
        *(kinds[i % 2](WEIGHT[0], WEIGHT[1], WEIGHT[2:], padding=(1, 1, 2)) for i in range(layers))
    )


def tables() -> list[Table]:
    """Measure everything."""
    torch.manual_seed(0)
    model = network(LAYERS).eval()
    with tempfile.TemporaryDirectory() as folder:
        source, plan = Path(folder, "source.safetensors"), Path(folder, "conversion.json")
        save_file(model.state_dict(), source)
        size = source.stat().st_size
        record = mlxport.convert(model, torch.zeros(1, 256, 2, 2, 2), verify=False).conversion
        plan.write_text(json.dumps(record.to_json()))
        del model
        begun = time.perf_counter()
        shutil.copyfile(source, Path(folder, "copy.safetensors"))
        copied = time.perf_counter() - begun
        command = [sys.executable, "-c", CONVERT, str(source), str(Path(folder, "out"))]
        done = subprocess.run(
            [*command, str(plan), SHARD], check=True, capture_output=True, text=True
        )
        took = json.loads(done.stdout.splitlines()[-1])
    text = (
        f"{size / 2**20:.0f} MiB of float32 weights of 3-D convolutions, every one permuted, by a "
        f"plan, into shards of {SHARD}; the source's digest is taken on the way."
    )
    rows = [
        ["copy of the file", f"{copied:.2f}", "1x"],
        ["convert by a plan", f"{took:.2f}", times(took / copied)],
    ]
    return [Table("Checkpoints", text, ["step", "s", "to the copy"], rows)]
