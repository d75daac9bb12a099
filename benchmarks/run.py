"""Run every benchmark, print its tables and write ``benchmarks/results.md``."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

BENCHMARKS = ("startup", "blas", "conv_transpose", "emitted", "conversion", "checkpoint")
RESULTS = Path(__file__).with_name("results.md")

HEADER = """# Benchmarks

Written by `make bench`. Every ratio is of times measured side by side in one run, the least of
several rounds each. Nothing here ran on Metal.
"""


def machine() -> str:
    """Describe what this runs on."""
    names = [line for line in _cpuinfo() if line.startswith("model name")]
    processor = names[0].partition(":")[2].strip() if names else platform.processor()
    packages = ", ".join(f"{name} {version(name)}" for name in ("mlx", "torch", "mlxport"))
    return (
        f"{platform.system()} {platform.machine()}, {processor or 'unknown processor'}, "
        f"{os.cpu_count()} cores, torch on {torch.get_num_threads()} thread(s); "
        f"Python {platform.python_version()}, {packages}."
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Run the benchmarks named on the command line, or all, and write the results of all."""
    chosen = sys.argv[1:] or BENCHMARKS
    parts = [HEADER, machine() + "\n"]
    for name in chosen:
        begun = time.perf_counter()
        for table in importlib.import_module(name).tables():
            text = table.markdown()
            print(text, flush=True)
            parts.append(text)
        print(f"({name}: {time.perf_counter() - begun:.0f} s)", file=sys.stderr)
    if list(chosen) == list(BENCHMARKS):
        RESULTS.write_text("\n".join(parts))
        print(f"Written to {RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import mlxport.converter.environment as environment

    environment.prepare()
    torch.set_num_threads(1)
    main()
