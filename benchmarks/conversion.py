"""What ``mlxport convert`` takes, beside torch.export alone and reading and writing the weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
from safetensors.torch import save_file
from timing import Table, times

HERE = Path(__file__).parent
NETWORKS = {"unet": "3-D U-Net", "bert": "BERT base"}
ROUNDS = 3
# Neither is the conversion's own: the other side does not count them either.
BEFORE = ("imports", "model")


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes:
        seconds: on the wall clock, from its start to its end.
        peak: bytes in memory at the most, mapped files that were read among them.
        said: what it printed, from JSON.
        processor: seconds of processor time, all threads together.
        anonymous: bytes in memory at the most that are in no file, by samples every 20 ms; None
            where the system does not tell.
    """

    seconds: float
    peak: int
    said: dict[str, Any]
    processor: float
    anonymous: int | None


def tables() -> list[Table]:
    """Measure everything."""
    measured = {title: _network(name) for name, title in NETWORKS.items()}
    return [_summary(measured), _stages({title: own for title, (_, own) in measured.items()})]


def _network(name: str) -> tuple[Run, Run]:
    """Return torch.export with the weights, and the conversion: of each the fastest process."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, out = write_checkpoint(name, folder), Path(folder, "out")
        alone = [sys.executable, str(HERE / "export_alone.py"), name, str(checkpoint)]
        convert = conversion(name, checkpoint, out)
        runs: tuple[list[Run], list[Run]] = ([], [])
        for _ in range(ROUNDS):
            runs[0].append(run_process([*alone, str(Path(folder, "copy.safetensors"))]))
            runs[1].append(run_process(convert))
            shutil.rmtree(out)
    return min(runs[0], key=_export_and_weights), min(runs[1], key=_converted)


def write_checkpoint(name: str, folder: str) -> Path:
    """Write the weights of a network."""
    checkpoint = Path(folder, "checkpoint.safetensors")
    model = getattr(networks, name)()
    save_file({key: value.clone() for key, value in model.state_dict().items()}, checkpoint)
    return checkpoint


def conversion(name: str, checkpoint: Path, out: Path) -> list[str]:
    """Return the command that converts a network."""
    given, _ = networks.inputs(name)
    command = [str(Path(sys.executable).with_name("mlxport")), "convert", str(checkpoint)]
    command += ["--model", f"networks:{name}", "--input", given, "-o", str(out)]
    return [*command, "--timings", "--json"]


def run_process(command: list[str]) -> Run:
    """Run a command that prints JSON, and measure it."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    # the one thread of the other benchmarks: a command takes what the machine has
    environment.pop("OMP_NUM_THREADS", None)
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.DEVNULL, env=environment
        )
        anonymous: list[int] = []
        watch = threading.Thread(target=_watch_memory, args=(process.pid, anonymous))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        watch.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
        output.seek(0)
        said = json.load(output)
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(
        seconds,
        usage.ru_maxrss * unit,
        said.get("timings", said),
        usage.ru_utime + usage.ru_stime,
        max(anonymous, default=None),
    )


def _watch_memory(process: int, found: list[int]) -> None:
    """Note a process's anonymous memory, in bytes, until it ends; where /proc tells it."""
    path = Path(f"/proc/{process}/status")
    while True:
        try:
            lines = path.read_text().splitlines()
        except OSError:  # it has ended, or there is no /proc
            return
        sizes = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
        if not sizes:  # it has ended, and nobody has asked for its exit code yet
            return
        found.append(int(sizes[0]) * 1024)
        time.sleep(0.02)


def _export_and_weights(run: Run, export: str = "first") -> float:
    return float(run.said[export] + run.said["weights"])


def _converted(run: Run, parity: bool = True) -> float:
    stages = run.said["stages"]
    without = [*BEFORE, *(() if parity else ("verify",))]
    return float(run.said["seconds"] - sum(stages.get(name, 0.0) for name in without))


def _summary(measured: dict[str, tuple[Run, Run]]) -> Table:
    text = (
        "Networks of about 100 million parameters, float32, seconds of processes of their own on "
        f"all cores (the fastest of {ROUNDS}, in turn), without importing packages and making the "
        "model, which both sides do. A: torch.export as a process first does it, and reading and "
        "writing the weights. B: the same where torch.export has run before. The target is 3x. "
        "Memory is the most a process held, pages of mapped files among them."
    )
    head = ["", *measured]
    rows: list[list[str]] = []

    def row(title: str, of: Any) -> None:
        rows.append([title, *(of(base, own) for base, own in measured.values())])

    row("torch.export, first", lambda base, own: f"{base.said['first']:.2f}")
    row("torch.export, again", lambda base, own: f"{base.said['again']:.2f}")
    row("read and write the weights", lambda base, own: f"{base.said['weights']:.2f}")
    for title, parity in (("mlxport convert", True), ("mlxport convert, but for parity", False)):
        row(title, lambda base, own, p=parity: f"{_converted(own, p):.2f}")
        for letter, export in (("A", "first"), ("B", "again")):
            row(
                f"to {letter}",
                lambda base, own, p=parity, e=export: times(
                    _converted(own, p) / _export_and_weights(base, e)
                ),
            )
    row("whole process of A, B", lambda base, own: f"{base.seconds:.1f}")
    row("whole process of mlxport convert", lambda base, own: f"{own.seconds:.1f}")
    row("peak memory of A, B, GB", lambda base, own: f"{base.peak / 1e9:.2f}")
    row("peak memory of mlxport convert, GB", lambda base, own: f"{own.peak / 1e9:.2f}")
    return Table("Conversion", text, head, rows)


def _stages(measured: dict[str, Run]) -> Table:
    names = dict.fromkeys(name for run in measured.values() for name in run.said["stages"])
    rows = [
        [
            " / ".join(name.split("/")),
            *(f"{run.said['stages'].get(name, 0.0):.2f}" for run in measured.values()),
        ]
        for name in sorted(names, key=lambda name: list(names).index(name.split("/")[0]))
    ]
    text = (
        "The same conversions by stage (`--timings`), seconds. What runs side by side counts for "
        "each."
    )
    return Table("Conversion by stage", text, ["stage", *measured], rows)
