"""The sliding window blends patches as it says, over a converted U-Net too."""

from __future__ import annotations

import itertools
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

import mlxport
from mlxport.examples import sliding_window as example


@pytest.mark.parametrize(
    ("size", "patch", "overlap", "want"),
    [
        (256, 96, 0.25, [0, 53, 107, 160]),
        (24, 16, 0.25, [0, 8]),
        (16, 16, 0.5, [0]),
        (7, 16, 0.25, [0]),
        (32, 16, 0.0, [0, 16]),
    ],
)
def test_patches_begin_evenly_and_reach_the_end(
    size: int, patch: int, overlap: float, want: list[int]
) -> None:
    assert example.starts(max(size, patch), patch, overlap) == want


@pytest.mark.parametrize("shape", [(24, 20, 17, 2), (9, 20, 16, 1)], ids=["larger", "smaller"])
def test_what_no_patch_changes_comes_back(shape: tuple[int, ...]) -> None:
    volume = mx.random.normal(shape)
    got = example.sliding_window(lambda x: x * 2, volume, (12, 16, 8))
    assert got.shape == shape
    assert mx.allclose(got, volume * 2, rtol=1e-5, atol=1e-5)


def test_memory_is_that_of_one_patch() -> None:
    volume = mx.zeros((64, 32, 32, 4))
    mx.eval(volume)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(example.sliding_window(lambda x: mx.repeat(x, 64, -1).sum(-1, True), volume, (16,) * 3))
    most = mx.get_peak_memory() - before
    patch = 16**3 * 4 * 64 * volume.itemsize
    assert most < 2 * patch + 8 * volume.nbytes


def test_a_converted_unet_is_blended_as_torchs_would_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole script on a small volume; then its model against torch's, patch by patch."""
    made = []

    def kept(*args: Any, **kwargs: Any) -> Any:
        made.append((args[0], convert(*args, **kwargs)))
        return made[-1][1]

    convert = mlxport.convert
    monkeypatch.setattr(mlxport, "convert", kept)
    monkeypatch.setattr("sys.argv", ["sliding_window.py", "--size", "20", "--patch", "16"])
    example.main()
    printed = capsys.readouterr().out
    assert printed.startswith("parity holds")
    assert "(20, 20, 20, 1) to (20, 20, 20, 2)" in printed
    assert "peak memory" in printed

    torch_model, result = made[0]
    torch_model.eval().double()
    volume = np.random.default_rng(0).normal(size=(20, 20, 20)).astype("float32")
    got = example.sliding_window(result.model, mx.array(volume[..., None]), (16,) * 3, 0.5)
    total, weight = np.zeros((2, 20, 20, 20)), np.zeros((20, 20, 20))
    sides = np.exp(-0.5 * (np.arange(16) - 7.5) ** 2 / 2**2)
    weights = np.einsum("i,j,k->ijk", sides, sides, sides)
    for corner in itertools.product((0, 4), repeat=3):
        place = tuple(slice(start, start + 16) for start in corner)
        with torch.inference_mode():
            scores = torch_model(torch.tensor(volume[place], dtype=torch.double)[None, None])
        total[(slice(None), *place)] += weights * scores[0].numpy()
        weight[place] += weights
    np.testing.assert_allclose(got, np.moveaxis(total / weight, 0, -1), rtol=1e-4, atol=1e-4)
