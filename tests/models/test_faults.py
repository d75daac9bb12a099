"""Faults that ports really have, put into a right conversion one by one: each must be found.

And no alarm where there is none: the same model, right, over draws of weights and inputs: twenty,
with ``MLXPORT_SWEEP=1`` a hundred.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
import torch

import mlxport
from mlxport.layers import LSTM, Upsample

SWEEP = os.environ.get("MLXPORT_SWEEP", "0") != "0"


class Crop(torch.nn.Module):
    """Takes off what the transposed convolution made too much."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 1:, 1:, 1:] * 1.0


class Net(torch.nn.Module):
    """One of each layer that is easily ported wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv3d(2, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm3d(8)
        self.gelu = torch.nn.GELU()
        self.up = torch.nn.ConvTranspose3d(8, 8, 3, stride=2, padding=1, output_padding=1)
        self.grouped = torch.nn.ConvTranspose3d(8, 8, 3, stride=1, padding=1, groups=2)
        self.crop = Crop()
        self.groups = torch.nn.GroupNorm(4, 8)
        self.sample = torch.nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
        self.linear = torch.nn.Linear(8, 8)
        self.memory = torch.nn.LSTM(8, 6, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.gelu(self.norm(self.stem(x)))
        x = self.groups(self.crop(self.grouped(self.up(x))))
        x = self.linear(self.sample(x).mean((3, 4)).transpose(1, 2))
        y: torch.Tensor = self.memory(x)[0]
        return y


def replaced(layer: nn.Module, call: Callable[[nn.Module, mx.array], Any]) -> None:
    """Let a layer compute something else."""
    layer.__class__ = type(type(layer).__name__, (type(layer),), {"__call__": call})


def channels_swapped(model: Any) -> None:
    model.up.weight = mx.swapaxes(model.up.weight, 0, -1)


def kernel_flipped(model: Any) -> None:
    model.up.weight = model.up.weight[:, ::-1, ::-1, ::-1]


def padded_at_the_other_end(model: Any) -> None:
    call = type(model.up).__call__

    def padded(layer: nn.Module, x: mx.array) -> mx.array:
        shifted = mx.pad(call(layer, x), ((0, 0), (1, 0), (1, 0), (1, 0), (0, 0)))
        return shifted[:, :-1, :-1, :-1]

    replaced(model.up, padded)


def groups_interleaved(model: Any) -> None:
    weight = model.grouped.weight
    model.grouped.weight = weight.reshape(2, 4, *weight.shape[1:]).swapaxes(0, 1).flatten(0, 1)


def other_eps(model: Any) -> None:
    model.norm.eps = 1e-3


def statistics_swapped(model: Any) -> None:
    mean, variance = model.norm.running_mean, model.norm.running_var
    model.norm.running_mean, model.norm.running_var = variance, mx.abs(mean)


def tanh_for_erf(model: Any) -> None:
    replaced(model.gelu, lambda layer, x: nn.gelu_approx(x))


def corners_aligned(model: Any) -> None:
    assert isinstance(model.sample, Upsample)
    model.sample.align_corners = True


def channels_grouped_in_turn(model: Any) -> None:
    native = nn.GroupNorm(4, 8, pytorch_compatible=False)
    native.update({"weight": model.groups.weight, "bias": model.groups.bias})
    replaced(model.groups, lambda layer, x: native(x))


def gates_in_another_order(model: Any) -> None:
    assert isinstance(model.memory, LSTM)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        i, f, g, o = mx.split(model.memory[name], 4)
        model.memory[name] = mx.concatenate([i, g, f, o])


def bias_dropped(model: Any) -> None:
    del model.linear["bias"]


def cropped_at_the_other_end(model: Any) -> None:
    replaced(model.crop, lambda layer, x: x[:, :-1, :-1, :-1] * 1.0)


def summed_in_half_precision(model: Any) -> None:
    weight, bias = (model.linear[name].astype(mx.float16) for name in ("weight", "bias"))
    replaced(
        model.linear, lambda layer, x: (x.astype(mx.float16) @ weight.T + bias).astype(mx.float32)
    )


FAULTS: dict[Callable[[Any], None], str] = {
    channels_swapped: "up",
    kernel_flipped: "up",
    padded_at_the_other_end: "up",
    groups_interleaved: "grouped",
    other_eps: "norm",
    statistics_swapped: "norm",
    tanh_for_erf: "gelu",
    corners_aligned: "sample",
    channels_grouped_in_turn: "groups",
    gates_in_another_order: "memory",
    bias_dropped: "linear",
    cropped_at_the_other_end: "crop",
    summed_in_half_precision: "linear",
}


def trained(randomise: Callable[[torch.nn.Module], torch.nn.Module], seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return randomise(Net())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_at_its_layer(
    fault: Callable[[Any], None], randomise: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    module = trained(randomise, 0)
    inputs = torch.randn(2, 2, 4, 5, 6)
    model: Any = mlxport.convert(module, inputs, verify=False).model
    assert mlxport.verify(model, module, inputs).passed
    fault(model)
    report = mlxport.verify(model, module, inputs)
    assert not report.passed
    assert report.culprit == FAULTS[fault]
    assert report.verdict.startswith(f"parity FAILED at {FAULTS[fault]}:")


@pytest.mark.slow
def test_no_alarm_where_there_is_no_fault(
    randomise: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    alarms = []
    for seed in range(100 if SWEEP else 20):
        module = trained(randomise, seed)
        inputs = torch.randn(2, 2, 4, 5, 6)
        report = mlxport.convert(module, inputs).report
        assert report is not None
        if not report.passed:
            alarms.append(f"seed {seed}: {report.verdict}")
    assert not alarms, "\n".join(alarms)
