"""Linear layers behind flattened arrays: the weight's columns are moved where that is safe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.graph.lowering.weight_plan import state_tensors
from mlxport.converter.plan.record import Conversion

SHAPE = (2, 3, 4, 6)


class Classifier(nn.Module):
    """A convolution, a flattened image, and whatever a case does with it."""

    def __init__(self, head: Any, forward: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.head = head
        self.does = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.does(self, self.conv(x))


def tied() -> nn.Module:
    heads = nn.ModuleList([nn.Linear(120, 4, bias=False) for _ in range(2)])
    heads[1].weight = heads[0].weight
    return heads


MOVED = {
    "flatten": (lambda: nn.Linear(120, 4), lambda m, x: m.head(x.flatten(1))),
    "flatten layer": (
        lambda: nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(120, 7), nn.Linear(7, 4)),
        lambda m, x: m.head(x),
    ),
    "view": (lambda: nn.Linear(120, 4, bias=False), lambda m, x: m.head(x.view(x.shape[0], -1))),
    "some of the axes": (
        lambda: nn.Linear(30, 4),
        lambda m, x: m.head(x.transpose(1, 2).flatten(2)),
    ),
    "two layers": (
        lambda: nn.ModuleList([nn.Linear(120, 4), nn.Linear(120, 3)]),
        lambda m, x: (m.head[0](x.flatten(1)), m.head[1](x.flatten(1))),
    ),
}

LEFT = {
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(120, 4)),
        lambda m, x: m.head(x.flatten(1)),
    ),
    "called twice": (
        lambda: nn.Linear(120, 4),
        lambda m, x: m.head(x.flatten(1)) + m.head(x.sin().flatten(1)),
    ),
    "called on another array": (
        lambda: nn.Linear(120, 4),
        lambda m, x: m.head(x.flatten(1)) + m.head(x.new_ones(2, 120)),
    ),
    "weight read elsewhere": (
        lambda: nn.Linear(120, 4),
        lambda m, x: m.head(x.flatten(1)) + m.head.weight.sum(1),
    ),
    "weight of two layers": (tied, lambda m, x: m.head[0](x.flatten(1)) + m.head[1](x.flatten(1))),
    "array transposed after": (
        lambda: nn.Linear(2, 4),
        lambda m, x: m.head(x.flatten(1).T),
    ),
}


def converted(case: tuple[Any, Any]) -> tuple[nn.Module, Any]:
    head, forward = case
    torch.manual_seed(0)
    model = Classifier(head(), forward).eval()
    return model, mlxport.convert(model, torch.randn(SHAPE))


def moved(conversion: Conversion) -> list[str]:
    """Names of the tensors whose columns the plan moves."""
    entries = conversion.plan.entries
    return [e.targets[0] for e in entries if [s.kind for s in e.steps][-1:] == ["reshape"]]


@pytest.mark.parametrize("case", MOVED.values(), ids=MOVED)
def test_columns_are_moved_and_not_the_array(case: tuple[Any, Any]) -> None:
    _, result = converted(case)
    assert result.report.passed, result.report.to_text()
    assert result.conversion.transposes == 1, result.source
    assert moved(result.conversion)


@pytest.mark.parametrize("case", LEFT.values(), ids=LEFT)
def test_weights_that_others_read_stay_as_they_are(case: tuple[Any, Any]) -> None:
    _, result = converted(case)
    assert result.report.passed, result.report.to_text()
    assert not moved(result.conversion)


def test_the_layer_is_judged_alone_on_what_pytorch_fed_it() -> None:
    _, result = converted(MOVED["flatten"])
    (entry,) = (entry for entry in result.report.entries if entry.path == "head")
    assert entry.verdicts["alone"].passed


def test_the_plan_gives_pytorchs_weight_back_bit_for_bit() -> None:
    model, result = converted(MOVED["flatten"])
    conversion = Conversion.from_json(result.conversion.to_json())
    assert conversion == result.conversion
    source = state_tensors(model)
    (entry,) = (e for e in conversion.plan.entries if e.targets == ("head.weight",))
    there = entry.apply((source["head.weight"],))
    assert not np.array_equal(there[0].bits, source["head.weight"].bits)
    assert np.array_equal(entry.invert(there)[0].bits, source["head.weight"].bits)
