"""Checkpoints at the edges: tensors of gigabytes, and very many of them, converted by a plan."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from checkpoint import Made, copy
from timing import Table, times

from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.plan.record import Conversion
from mlxport.converter.plan.steps import Step, conv_transpose_weight, conv_weight
from mlxport.converter.plan.tensor import Tensor, TensorSpec
from mlxport.converter.plan.weight_plan import Entry, WeightPlan

# Of the sizes below, to try it where the disk is small.
SCALE = float(os.environ.get("MLXPORT_BENCHMARK_SCALE", "1"))

# Prints seconds, those of the processor, and the most memory besides mapped files, in bytes.
CONVERT = """
import json, sys, threading, time
from mlxport.converter.options.output import OutputOptions
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.tasks import convert_by_plan as transfer

def anonymous():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["RssAnon"].split()[0]) * 1024

peak, done = anonymous(), threading.Event()
def watch():
    global peak
    while not done.wait(0.02):
        peak = max(peak, anonymous())
watching = threading.Thread(target=watch)
watching.start()
begun = time.perf_counter(), time.process_time()
transfer.convert_by_plan(*sys.argv[1:], SourceOptions(), OutputOptions())
took = time.perf_counter() - begun[0], time.process_time() - begun[1]
done.set()
watching.join()
print(json.dumps([*took, max(peak, anonymous())]))
"""


class Load(NamedTuple):
    """A checkpoint to convert.

    Attributes:
        count: of its tensors.
        shape: of each.
        steps: what is done with each.
    """

    count: int
    shape: tuple[int, ...]
    steps: tuple[Step, ...]


def loads() -> dict[str, Load]:
    """Return what is converted, by what it is called in the table."""
    large = int(28250 * SCALE)
    many, medium = int(100_000 * SCALE), int(20_000 * SCALE)
    return {
        "2 tensors of 3 GB": Load(2, (large, 1024, 3, 3, 3), conv_transpose_weight()),
        "100,000 tensors": Load(many, (8, 4, 3, 3), conv_weight(2)),
        "20,000 tensors, 6.3 GB": Load(medium, (96, 96, 3, 3), conv_weight(2)),
    }


def make(folder: Path, load: Load) -> Made:
    """Write a checkpoint of random float32 weights, one tensor at a time, and its plan."""
    spec = TensorSpec("F32", load.shape)
    specs = {f"layers.{number}.weight": spec for number in range(load.count)}
    values = np.random.default_rng(0).random(load.shape, np.float32)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for number, name in enumerate(specs):
            values.flat[0] = number
            yield name, Tensor(values, "F32")

    made = Made(folder / "source.safetensors", folder / "conversion.json")
    write_safetensors(made.source, tensors(), {"format": "pt"}, specs=specs)
    entries = tuple(Entry((name,), (name,), load.steps) for name in specs)
    conversion = Conversion(plan=WeightPlan(entries, specs=specs), modules=(), inputs=())
    made.plan.write_text(json.dumps(conversion.to_json()))
    return made


def measure(load: Load) -> list[str]:
    """Convert in a fresh process, and copy the file with ``cp``; return a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder), load)
        size = made.source.stat().st_size
        with made.source.open("rb") as file:  # into the page cache
            while file.read(1 << 24):
                pass
        copied, copying = copy(made.source, Path(folder, "copy"))
        Path(folder, "copy").unlink()
        out = Path(folder, "out")
        command = [sys.executable, "-c", CONVERT, str(made.source), str(out), str(made.plan)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    took, spent, peak = json.loads(done.stdout.splitlines()[-1])
    seconds = [f"{took:.1f}", f"{spent:.1f}", f"{copied:.1f}", f"{copying:.1f}"]
    return [f"{size / 1e9:.2f}", *seconds, times(took / copied), f"{peak / 1e6:.0f}"]


def tables() -> list[Table]:
    """Measure everything."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 20e9 * SCALE:
        sys.exit(f"{tempfile.gettempdir()} has {free / 1e9:.0f} GB free; 20 are needed")
    text = (
        "Float32 weights of convolutions, converted by a plan in a process of its own, with the "
        "SHA-256 of the file, a digest of every tensor and the search for NaN. Memory is what is "
        "resident besides mapped files, the interpreter included. cp is followed by fsync; the "
        "conversion ends on disk, too."
        + f" At {SCALE:g} of the sizes that are named."
        * (SCALE != 1)
    )
    head = ["checkpoint", "GB", "s", "s of the processor", "cp, s", "cp, s of the processor"]
    head += ["to cp", "MB"]
    rows = [[name, *measure(load)] for name, load in loads().items()]
    return [Table("Load", text, head, rows)]
