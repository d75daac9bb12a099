"""Converting a large checkpoint by a plan: time and memory beside copying the file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from timing import Table, times

from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.plan.record import Conversion
from mlxport.converter.plan.steps import Step, conv_transpose_weight, conv_weight
from mlxport.converter.plan.tensor import Tensor, TensorSpec
from mlxport.converter.plan.weight_plan import Entry, WeightPlan

SIZE = float(os.environ.get("MLXPORT_BENCHMARK_GB", "4")) * 1e9
ROUNDS = int(os.environ.get("MLXPORT_BENCHMARK_ROUNDS", "5"))
SHARD = 2 * 10**9

# What the checkpoint is made of: its part, the steps, and the shapes that come in turn.
PARTS: list[tuple[float, tuple[Step, ...], list[tuple[int, ...]]]] = [
    (
        0.5,  # ConvTranspose3d
        conv_transpose_weight(),
        [(512, 256, 2, 2, 2), (320, 256, 3, 3, 3), (256, 128, 4, 4, 4), (512, 512, 3, 3, 3)],
    ),
    (0.25, conv_weight(3), [(256, 256, 3, 3, 3), (512, 512, 3, 3, 3), (128, 64, 5, 5, 5)]),
    (0.25, (), [(4096, 4096), (4096,), (1024, 4096)]),
]

# Prints seconds, those of the processor and the most memory that was resident, in bytes; the
# imports come before.
CONVERT = """
import json, sys, time
from mlxport.converter.options.output import OutputOptions
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.tasks import convert_by_plan as transfer
begun = time.perf_counter(), time.process_time()
transfer.convert_by_plan(*sys.argv[1:], SourceOptions(), OutputOptions())
took = time.perf_counter() - begun[0], time.process_time() - begun[1]
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([*took, int(status["VmHWM"].split()[0]) * 1024]))
"""


class Made(NamedTuple):
    """A checkpoint and the plan that converts it."""

    source: Path
    plan: Path


def make(folder: Path) -> Made:
    """Write a checkpoint of random float32 weights, one tensor at a time, and its plan."""
    entries, specs = [], {}
    for part, (share, steps, shapes) in enumerate(PARTS):
        number, filled = 0, 0
        while filled < share * SIZE:
            name = f"{part}.{number}.weight"
            specs[name] = TensorSpec("F32", shapes[number % len(shapes)])
            fitting = steps if len(specs[name].shape) == 5 else ()
            entries.append(Entry((name,), (name,), fitting))
            filled += specs[name].nbytes
            number += 1

    def tensors() -> Iterator[tuple[str, Tensor]]:
        random = np.random.default_rng(0)
        for name, spec in specs.items():
            yield name, Tensor(random.random(spec.shape, np.float32), "F32")

    made = Made(folder / "source.safetensors", folder / "conversion.json")
    write_safetensors(made.source, tensors(), {"format": "pt"}, specs=specs)
    conversion = Conversion(plan=WeightPlan(tuple(entries), specs=specs), modules=(), inputs=())
    made.plan.write_text(json.dumps(conversion.to_json()))
    return made


def copy(source: Path, target: Path) -> tuple[float, float]:
    """Copy a file with ``cp``; return the seconds until it is on disk, and of the processor."""
    before = os.times()
    subprocess.run(["cp", str(source), str(target)], check=True)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    after = os.times()
    spent = (now - then for now, then in zip(after[:4], before[:4], strict=True))
    return after.elapsed - before.elapsed, sum(spent)


def convert(made: Made, target: Path) -> tuple[float, float, int]:
    """Convert in a fresh process; return seconds, processor's seconds and peak resident bytes."""
    command = [sys.executable, "-c", CONVERT, str(made.source), str(target), str(made.plan)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    took, spent, peak = json.loads(done.stdout.splitlines()[-1])
    return took, spent, peak


def tables() -> list[Table]:
    """Measure everything."""
    with tempfile.TemporaryDirectory() as folder:
        free = shutil.disk_usage(folder).free
        if free < 3 * SIZE:
            sys.exit(f"{folder} has {free / 1e9:.0f} GB free; {3 * SIZE / 1e9:.0f} are needed")
        made = make(Path(folder))
        copies, conversions = [], []
        for _ in range(ROUNDS):
            with made.source.open("rb") as file:  # into the page cache
                while file.read(1 << 24):
                    pass
            copies.append(copy(made.source, Path(folder, "copy")))
            Path(folder, "copy").unlink()
            conversions.append(convert(made, Path(folder, "out")))
            shutil.rmtree(Path(folder, "out"))
        size = made.source.stat().st_size
    text = (
        f"{size / 1e9:.1f} GB of float32 weights, half of them 5-D ones of transposed convolutions "
        f"and a quarter of 3-D convolutions, converted by a plan into shards of {SHARD / 1e9:.0f} "
        "GB, with the SHA-256 of the file, a digest of every tensor and the search for NaN. The "
        f"page cache is warm, both are on disk at the end; the least of {ROUNDS} rounds and of "
        "their own ratios. Most memory resident at once: "
        f"{max(peak for _, _, peak in conversions) / 1e6:.0f} MB, the interpreter and its "
        "libraries included."
    )
    paired = min(ours[0] / cp[0] for ours, cp in zip(conversions, copies, strict=True))
    rows = [
        _row("cp and fsync", copies, "1x"),
        _row("convert by a plan", conversions, times(paired)),
    ]
    head = ["step", "s", "s of the processor", "to the copy, same round"]
    return [Table("Checkpoints", text, head, rows)]


def _row(name: str, rounds: Sequence[tuple[float, ...]], ratio: str) -> list[str]:
    return [name, *(f"{min(values):.2f}" for values in list(zip(*rounds, strict=True))[:2]), ratio]
