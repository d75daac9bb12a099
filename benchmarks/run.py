"""Run every benchmark, print its tables and write ``benchmarks/results.md`` after each.

    python benchmarks/run.py                           all, on MLX's default device
    python benchmarks/run.py --device cpu conv_transpose
    MLX_ENABLE_TF32=1 python benchmarks/run.py conv_transpose

On a GPU the results go to ``results-metal.md`` or ``results-cuda.md``, ``-tf32`` where it is on.
What is measured so far stands in a file ``.partial`` beside them, which stays where a run of all is
interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from readme import quote

BENCHMARKS = (
    *("startup", "blas", "conv_transpose", "threads", "emitted"),
    *("conversion", "large", "checkpoint", "load"),
)
FOLDER = Path(__file__).parent

HEADER = """# Benchmarks

Written by `make bench`. Every ratio is of times measured side by side in one run, the least of
several rounds each. MLX ran on {backend}.
"""


def results(where: Mapping[str, str]) -> Path:
    """The file of a backend's results; the README quotes that of the CPU."""
    if where["backend"] == "cpu":
        return FOLDER / "results.md"
    tf32 = "" if where["MLX_ENABLE_TF32"] == "0" else "-tf32"
    return FOLDER / f"results-{where['backend']}{tf32}.md"


def machine(where: Mapping[str, str]) -> str:
    """Describe what this runs on."""
    import torch

    names = [line for line in _cpuinfo() if line.startswith("model name")]
    processor = names[0].partition(":")[2].strip() if names else platform.processor()
    packages = ", ".join(f"{name} {version(name)}" for name in ("mlx", "torch", "mlxport"))
    return (
        f"{platform.system()} {platform.machine()}, {processor or 'unknown processor'}, "
        f"{os.cpu_count()} cores, torch on {torch.get_num_threads()} thread(s); "
        f"MLX on {where['backend']} ({where['device']}), "
        f"MLX_ENABLE_TF32={where['MLX_ENABLE_TF32']}; "
        f"Python {platform.python_version()}, {packages}."
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Run the benchmarks named on the command line, or all, and write the results of all."""
    parser = argparse.ArgumentParser(description="Measure, and write benchmarks/results.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="MLX's default where left out")
    given = parser.parse_args()
    if unknown := {*given.names} - {*BENCHMARKS}:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    where = _settle(given.device)
    heading = [HEADER.format(**where), machine(where) + "\n"]
    if given.names:
        for _ in measured(given.names):
            pass
        return
    path = results(where)
    write_each(path, heading, measured(BENCHMARKS))
    print(f"Written to {path}", file=sys.stderr)
    if where["backend"] == "cpu":
        quote()


def measured(names: Iterable[str]) -> Iterator[list[str]]:
    """Run benchmarks one by one and yield the tables of each, printed already."""
    for name in names:
        begun = time.perf_counter()
        texts = [table.markdown() for table in importlib.import_module(name).tables()]
        print("\n".join(texts), flush=True)
        print(f"({name}: {time.perf_counter() - begun:.0f} s)", file=sys.stderr)
        yield texts


def write_each(path: Path, heading: Sequence[str], found: Iterable[Sequence[str]]) -> None:
    """Write what is found so far to ``path`` with ``.partial``, and at the end to ``path``.

    An interruption leaves the results of before, and beside them what was measured till then.
    """
    partial = path.with_name(f"{path.name}.partial")
    parts = list(heading)
    for texts in found:
        parts += texts
        partial.write_text("\n".join(parts))
    partial.replace(path)


def _settle(device: str | None) -> dict[str, str]:
    """Settle what must be before mlx is imported, then devices and threads; say where MLX runs."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from mlxport.converter.environment import prepare

    prepare()
    import mlx.core as mx
    import torch

    from mlxport.converter.parity.run.environment import environment

    if device is not None:
        if not mx.is_available(getattr(mx, device)):
            raise SystemExit(f"MLX has no {device} on this machine")
        mx.set_default_device(mx.Device(getattr(mx, device)))
    torch.set_num_threads(1)
    tf32 = os.environ["MLX_ENABLE_TF32"] != "0"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    return environment({})


if __name__ == "__main__":
    main()
