"""The example runs a converted U-Net over a volume as torch's would be, patch by patch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import mlxport
from mlxport.examples import sliding_window as example


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
    got = mlxport.sliding_window(result.model, volume[..., None], (16,) * 3, channels_last=True)
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
