"""Networks that read sizes at random: at any sizes the MLX model raises or agrees with PyTorch.

A few are always tried; ``MLXPORT_SWEEP=1`` tries 2,000 calls and more.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import size_readers
import torch

import mlxport

CALLS = 5
SEEDS = range(600 if os.environ.get("MLXPORT_SWEEP") == "1" else 14)


def outcome(converted: Any, trial: size_readers.Try, inputs: tuple[torch.Tensor, ...]) -> str:
    """Return ``"agrees"``, ``"raises"``, or what is wrong with a call."""
    expected = size_readers.run(trial.model, inputs)
    try:
        given = converted(*(mx.array(x.numpy()) for x in inputs))
        got = np.array(given)
    except Exception:
        return "raises"
    shapes = [tuple(x.shape) for x in inputs]
    if isinstance(expected, Exception):
        return f"takes {shapes}, which PyTorch refuses: {type(expected).__name__}: {expected}"
    if got.shape != tuple(expected.shape):
        return f"gives {got.shape} for {shapes}, PyTorch {tuple(expected.shape)}"
    if not np.allclose(got, expected.numpy(), rtol=1e-3, atol=1e-4, equal_nan=True):
        return f"gives other numbers for {shapes}"
    return "agrees"


def tried(seed: int) -> list[str]:
    """Return the outcomes of one network, the call of the example first."""
    trial = size_readers.draw(seed, CALLS)
    if isinstance(size_readers.run(trial.model, trial.example), Exception):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            converted = mlxport.convert(
                trial.model, trial.example, dynamic=trial.dynamic, verify=False
            ).model
        except mlxport.ConversionError:
            return ["refused"]
    calls = (trial.example, *trial.others)
    return [outcome(converted, trial, inputs) for inputs in calls]


@pytest.mark.parametrize("start", range(0, len(SEEDS), 14))
def test_it_raises_or_agrees(start: int) -> None:
    counted: Counter[str] = Counter()
    for seed in range(start, start + 14):
        outcomes = tried(seed)
        wrong = [one for one in outcomes if one not in ("agrees", "raises", "refused")]
        assert not wrong, f"seed {seed}, {size_readers.draw(seed, 0)}: {wrong}"
        assert outcomes[:1] != ["raises"], f"seed {seed}: raises at the example's own sizes"
        counted.update(outcomes[1:])
    assert counted["agrees"] > 4, counted  # or the checks would refuse whatever comes
    assert counted["raises"] > 4, counted
