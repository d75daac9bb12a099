"""Run a converted 3-D U-Net over a large volume, patch by patch, blended with a Gaussian."""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Sequence

import mlx.core as mx
import torch
from rich.console import Console
from rich.progress import track

import mlxport
from mlxport.examples.unet3d import UNet3d

Model = Callable[[mx.array], mx.array]


def starts(size: int, patch: int, overlap: float) -> list[int]:
    """Return where the patches of one axis begin: evenly, the last at the end of the axis."""
    count = math.ceil(max(size - patch, 0) / (patch * (1 - overlap))) + 1
    return [round(i * (size - patch) / max(count - 1, 1)) for i in range(count)]


def gaussian(patch: Sequence[int]) -> mx.array:
    """Return ``(D, H, W, 1)`` weights, highest in the middle, an eighth of a side wide."""
    sides = [mx.arange(side) - (side - 1) / 2 for side in patch]
    depth, height, width = (
        mx.exp(-32 * mx.square(x / n)) for x, n in zip(sides, patch, strict=True)
    )
    return depth[:, None, None, None] * height[:, None, None] * width[:, None]


def sliding_window(
    model: Model, volume: mx.array, patch: Sequence[int], overlap: float = 0.25
) -> mx.array:
    """Return the scores ``(D, H, W, classes)`` of a volume ``(D, H, W, C)``.

    Every patch is evaluated before the next begins, so memory holds one patch's activations
    beside the volume and its scores.

    Args:
        model: of ``(1, *patch, C)`` to ``(1, *patch, classes)``.
        volume: zeros are put behind it where it is smaller than a patch.
        patch: depth, height and width.
        overlap: the least share of a patch's side that it has in common with the next.
    """
    depth, height, width, _ = volume.shape
    short = [max(side - size, 0) for side, size in zip(patch, volume.shape[:3], strict=True)]
    volume = mx.pad(volume, [*((0, n) for n in short), (0, 0)])
    sizes, weights = volume.shape[:3], gaussian(patch)
    corners = itertools.product(*(starts(n, p, overlap) for n, p in zip(sizes, patch, strict=True)))
    total, weight = mx.array(0.0), mx.zeros((*sizes, 1))
    for corner in track([*corners], "patches", console=Console(stderr=True)):
        place = tuple(slice(start, start + side) for start, side in zip(corner, patch, strict=True))
        scores = model(volume[place][None]).squeeze(0)
        if total.ndim == 0:
            total = mx.zeros((*sizes, scores.shape[-1]))
        total[place] = total[place] + weights * scores
        weight[place] = weight[place] + weights
        mx.eval(total, weight)
    return (total / weight)[:depth, :height, :width]


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
    volume = mx.random.normal((given.size, given.size, given.size, 1))
    mx.eval(volume)
    mx.reset_peak_memory()
    begun = time.perf_counter()
    scores = sliding_window(result.model, volume, (given.patch,) * 3, given.overlap)
    mx.eval(scores)
    seconds, peak = time.perf_counter() - begun, mx.get_peak_memory() / 2**20
    print(f"{volume.shape} to {scores.shape} in {seconds:.0f} s, peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
