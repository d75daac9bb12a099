"""Run a converted 3-D U-Net over a large volume, patch by patch, blended with a Gaussian."""

import argparse
import time

import mlx.core as mx
import numpy as np
import torch

import mlxport
from mlxport.examples.unet3d import UNet3d


def main() -> None:
    """Convert a U-Net, run it over a random volume, and say how long it took and what memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="of the volume's sides")
    parser.add_argument("--patch", type=int, default=96, help="of a patch's sides")
    parser.add_argument("--overlap", type=float, default=0.25, help="of neighbouring patches")
    given = parser.parse_args()
    torch.manual_seed(0)
    example = torch.randn(1, 1, 24, 20, 16)
    result = mlxport.convert(UNet3d(), example, dynamic=(2, 3, 4), channels_last=True)
    if result.model is None or result.report is None or not result.report.passed:
        raise SystemExit(3)
    print(result.report.verdict)
    shape = (given.size, given.size, given.size, 1)
    volume = np.random.default_rng(0).normal(size=shape).astype("float32")
    mx.reset_peak_memory()
    begun = time.perf_counter()
    scores = mlxport.sliding_window(
        result.model, volume, (given.patch,) * 3, overlap=given.overlap, channels_last=True
    )
    seconds, peak = time.perf_counter() - begun, mx.get_peak_memory() / 2**20
    print(f"{volume.shape} to {scores.shape} in {seconds:.0f} s, MLX's peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
