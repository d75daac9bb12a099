"""Both kinds of convolution on two threads, MLX's and PyTorch's, in a process for each direction.

MLX's BLAS takes its number of threads from the environment when it is loaded, so a process cannot
measure one thread and then two. Elementwise operations of MLX run on one thread in any case.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from timing import Table

THREADS = 2
HEAD = ["shape", "mlx.nn", "ours", "ours, compiled", "torch", "mlx.nn / ours", "ours / torch"]


def tables() -> list[Table]:
    """Measure everything; nothing where there are fewer processors than threads."""
    if (os.cpu_count() or 1) < THREADS:
        return []
    found = []
    for derivative in (False, True):
        kind = "forward and backward" if derivative else "forward"
        text = (
            f"Milliseconds of one call, batch 1, with OMP_NUM_THREADS={THREADS} and PyTorch on as "
            "many. MLX's products are on all of them, what it does elementwise on one."
        )
        title = f"Convolution on {THREADS} threads, float32, {kind}"
        found.append(Table(title, text, HEAD, _rows(derivative)))
    return found


def _rows(derivative: bool) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, __file__, *(["derivative"] if derivative else [])],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
    )
    rows: list[list[str]] = json.loads(done.stdout)
    return rows


def main() -> None:
    """Print the rows as JSON, of one direction."""
    from mlxport.converter.environment import prepare

    prepare()
    import mlx.core as mx
    import torch

    mx.set_default_device(mx.cpu)  # type: ignore[arg-type]  # a device type is one
    torch.set_num_threads(THREADS)
    from conv_transpose import CONVOLUTIONS, SHAPES, measure

    derivative = "derivative" in sys.argv
    print(
        json.dumps(
            [
                [name, *measure(shape, "float32", derivative=derivative)]
                for name, shape in {**SHAPES, **CONVOLUTIONS}.items()
            ]
        )
    )


if __name__ == "__main__":
    main()
