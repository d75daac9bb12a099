"""Layers of a size for Winograd's algorithm are named, others are not."""

from __future__ import annotations

import mlx.nn as nn
import pytest

from mlxport import layers
from mlxport.converter.parity.run.winograd import winograd_note
from mlxport.converter.plan.record import Conversion, Layout, ModuleRecord
from mlxport.converter.plan.weight_plan import WeightPlan


class Model(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv = layer


def record(shape: tuple[int | str, ...]) -> Conversion:
    layout = Layout(shape, "float32", tuple(range(len(shape))))
    modules = (ModuleRecord("enc.conv", "conv", (layout,), (layout,)),)
    return Conversion(inputs=("x",), modules=modules, plan=WeightPlan(()))


IMAGE = (1, 128, 64, 64)
VOLUME = (1, 128, 8, 64, 64)
TAKEN = {
    "2-D": (nn.Conv2d(128, 128, 3, padding=1), IMAGE),
    "ours": (layers.Conv2d(128, 128, 3, padding="same"), IMAGE),
    "unequal channels": (nn.Conv2d(32, 224, 3), (1, 32, 64, 64)),
    "pixels of the batch": (nn.Conv2d(128, 128, 3), (4, 128, 32, 32)),
    "without a batch axis": (nn.Conv2d(128, 128, 3), IMAGE[1:]),
    "a side that may change": (nn.Conv2d(128, 128, 3), (1, 128, "h", 2)),
    "3-D": (nn.Conv3d(128, 128, (1, 3, 3), padding=(0, 1, 1)), VOLUME),
    "3-D, deep": (nn.Conv3d(128, 128, (7, 3, 3)), VOLUME),
    "3-D, a batch that may change": (nn.Conv3d(128, 128, (1, 3, 3)), ("n", *VOLUME[1:])),
}
LEFT = {
    "few channels": (nn.Conv2d(96, 128, 3), (1, 96, 64, 64)),
    "odd channels": (nn.Conv2d(128, 130, 3), IMAGE),
    "few pixels": (nn.Conv2d(128, 128, 3), (1, 128, 63, 64)),
    "stride": (nn.Conv2d(128, 128, 3, stride=2), IMAGE),
    "dilation": (nn.Conv2d(128, 128, 3, dilation=2), IMAGE),
    "groups": (nn.Conv2d(512, 512, 3, groups=2), (1, 512, 64, 64)),
    "another kernel": (nn.Conv2d(128, 128, (3, 5)), IMAGE),
    "3-D, a batch": (nn.Conv3d(128, 128, (1, 3, 3)), (2, *VOLUME[1:])),
    "3-D, padded in depth": (nn.Conv3d(128, 128, 3, padding=1), VOLUME),
    "3-D, deeper": (nn.Conv3d(128, 128, (8, 3, 3)), VOLUME),
    "no convolution": (nn.Linear(128, 128), IMAGE),
}


@pytest.mark.parametrize(("layer", "shape"), TAKEN.values(), ids=TAKEN)
def test_is_named(layer, shape):
    note = winograd_note(Model(layer), record(shape))
    assert note.startswith("on Metal, MLX computes enc.conv by Winograd's algorithm")
    assert "MLX_CONV_WINOGRAD=0" in note


@pytest.mark.parametrize(("layer", "shape"), LEFT.values(), ids=LEFT)
def test_is_not_named(layer, shape):
    assert winograd_note(Model(layer), record(shape)) == ""


def test_a_report_has_the_note_once():
    import torch

    from mlxport import convert

    model = torch.nn.Sequential(*(torch.nn.Conv2d(128, 128, 3, padding=1) for _ in range(5)))
    report = convert(model.eval(), torch.randn(IMAGE)).report
    (note,) = report.notes
    assert note.startswith("on Metal, MLX computes 0, 1, 2 and 2 more by Winograd's algorithm")
