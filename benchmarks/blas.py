"""What MLX gains on Linux from PyTorch's BLAS, which mlxport loads before it imports mlx."""

from __future__ import annotations

import os
import subprocess
import sys

from timing import Table, milliseconds, times

PRODUCT = """
import mlxport.converter.environment as environment
environment.prepare()
import mlx.core as mx
from timing import side_by_side
a, b = mx.random.normal((1024, 1024)), mx.random.normal((1024, 1024))
mx.eval(a, b)
product = lambda: mx.eval(mx.matmul(a, b, stream=mx.cpu))
print(side_by_side({"": product}, seconds=2)[""])
"""


def product(switch: str) -> float:
    """Seconds of a product of two 1024 x 1024 matrices, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCT],
        check=True,
        capture_output=True,
        text=True,
        cwd=os.path.dirname(__file__),
        env={**os.environ, "MLXPORT_TORCH_BLAS": switch},
    )
    return float(done.stdout)


def tables() -> list[Table]:
    """Measure everything."""
    if not sys.platform.startswith("linux"):
        return []
    own, torchs = product("0"), product("1")
    text = "A float32 product of two 1024 x 1024 matrices in MLX on the CPU, milliseconds."
    rows = [[milliseconds(own), milliseconds(torchs), times(own / torchs)]]
    return [Table("BLAS on Linux", text, ["MLX's own", "PyTorch's", "factor"], rows)]
