"""Sizes that a conversion fixes are checked; the others are taken, and right."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mlxport
from mlxport.converter.tasks.convert import Converted
from mlxport.examples.unet3d import UNet3d

IMAGE = (2, 4, 6, 8)
Function = Callable[..., torch.Tensor]


class Applied(nn.Module):
    """A function as a model."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.table = nn.Parameter(sample(8, 8, seed=9))

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.function(self, *args)


def sample(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def convert(model: nn.Module, *args: Any, **options: Any) -> Converted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlxport.convert(model.eval(), args, verify=False, **options)


def agrees(converted: Converted, model: nn.Module, *inputs: torch.Tensor) -> bool:
    got = np.array(converted.model(*(mx.array(x.numpy()) for x in inputs)))
    expected = model(*inputs).detach().numpy()
    return got.shape == expected.shape and np.allclose(got, expected, rtol=1e-4, atol=1e-5)


def refused(converted: Converted, x: torch.Tensor) -> str:
    """Return what the MLX model says to an input it refuses; empty where it takes it."""
    try:
        mx.eval(converted.model(mx.array(x.numpy())))
    except ValueError as error:
        return str(error)
    return ""


def is_plain(source: str) -> bool:
    return "raise" not in source


OPEN: dict[str, tuple[nn.Module, tuple[int, ...], tuple[tuple[int, ...], ...]]] = {
    "perceptron": (
        nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3)),
        (1, 8),
        ((4, 8), (2, 3, 8)),
    ),
    "convolutions": (
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.LeakyReLU(),
            nn.MaxPool2d(2),
            nn.InstanceNorm2d(4),
            nn.ConvTranspose2d(4, 2, 2, 2),
        ),
        (1, 1, 8, 12),
        ((3, 1, 10, 6), (2, 1, 8, 12)),
    ),
    "classifier": (
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        ),
        (1, 3, 8, 8),
        ((4, 3, 8, 8), (2, 3, 11, 9)),
    ),
    "upsampling": (
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")),
        (1, 2, 5, 7),
        ((2, 2, 3, 4),),
    ),
    "volume": (
        nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.GroupNorm(1, 2), nn.AvgPool3d(2)),
        (1, 1, 4, 6, 8),
        ((2, 1, 8, 4, 6),),
    ),
}


@pytest.mark.parametrize("name", OPEN)
def test_what_depends_on_no_size_takes_any(name: str) -> None:
    model, shape, others = OPEN[name]
    converted = convert(model, sample(*shape))
    assert is_plain(converted.source)
    assert all(agrees(converted, model, sample(*other, seed=1)) for other in others)


class Skips(nn.Module):
    """A small U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.out = nn.Conv2d(5, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.down(x))
        y = y + self.inner(y)
        return self.out(torch.cat([x, self.up(y)], 1)).softmax(1)


def test_a_u_net_takes_any_size() -> None:
    model = Skips().eval()
    converted = convert(model, sample(1, 1, 8, 12))
    assert "converted for" not in converted.source
    assert agrees(converted, model, sample(3, 1, 6, 4))


# layers, the least size that PyTorch takes; MLX would take one that is smaller
LEAST: dict[str, tuple[nn.Module, int]] = {
    "padded and strided": (nn.Conv1d(1, 2, 3, 2, 1), 1),
    "half a kernel of padding": (nn.Conv1d(1, 2, 2, padding=1), 1),
    "strides beyond the padding": (nn.Conv1d(1, 2, 5, 3, 1), 3),
    "patches": (nn.Conv1d(1, 2, 4, 4), 4),
    "dilated": (nn.Conv1d(1, 2, 3, 2, 1, dilation=2), 3),
    "one behind the other": (
        nn.Sequential(nn.Conv1d(1, 2, 3, 3), nn.MaxPool1d(2), nn.ReLU(), nn.Conv1d(2, 2, 2, 2)),
        12,
    ),
    "behind a mean": (nn.Sequential(nn.AvgPool1d(3, 2, 1), nn.Conv1d(1, 2, 3, 3)), 5),
    "enlarged": (nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv1d(1, 2, 5, 3)), 3),
    "transposed": (
        nn.Sequential(nn.ConvTranspose1d(1, 2, 3, 2, 1, 1), nn.Conv1d(2, 2, 5, 3)),
        3,
    ),
}


@pytest.mark.parametrize("name", LEAST)
def test_the_least_size_is_pytorchs(name: str) -> None:
    model, least = LEAST[name]
    converted = convert(model, sample(2, 1, 24))
    for size in range(least):
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 1, size))
        assert refused(converted, torch.zeros(2, 1, size))
    assert f"expected at least length {least}" in converted.source
    for size in (least, least + 1, 30):
        assert agrees(converted, model, sample(3, 1, size))


def test_the_least_size_behind_rounding_up_is_safe() -> None:
    """PyTorch takes 5, where the last window is not whole."""
    model = nn.Sequential(nn.MaxPool1d(2, ceil_mode=True), nn.Conv1d(1, 2, 3, 2)).eval()
    converted = convert(model, sample(2, 1, 24))
    assert "at least length 6" in refused(converted, sample(2, 1, 5))
    assert agrees(converted, model, sample(2, 1, 7))


def test_the_least_size_of_what_is_joined_is_the_examples() -> None:
    model = Applied(lambda m, x: F.conv1d(torch.cat([x, x], 2), m.table[:1, None, :4], stride=4))
    converted = convert(model, sample(2, 1, 8))
    assert agrees(converted, model, sample(3, 1, 8))
    assert "converted for" in refused(converted, sample(2, 1, 1))


# how a size is fixed, the axes of the example, the axes that stay open with another shape
FIXED: dict[str, tuple[Function, tuple[int, ...], tuple[int, ...] | None]] = {
    "mean by division": (lambda m, x: x.sum(1) / x.shape[1], (1, 8), None),
    "part of a table": (lambda m, x: x + m.table[: x.shape[1]], (1, 8, 8), None),
    "branch": (lambda m, x: x * 2 if x.size(0) == 2 else x * 3, (2, 4), None),
    "length": (lambda m, x: x / len(x), (4, 3), None),
    "number of elements": (lambda m, x: x / x.numel(), (4, 3), None),
    "scripted function": (lambda m, x: scaled(x), (4, 3), None),
    "view": (lambda m, x: x.view(2, -1), (2, 4), None),
    "whole slice": (lambda m, x: x[:, :4] * 2, (2, 4), None),
    "rows of one": (lambda m, x: x.squeeze(1), (4, 1, 3), (9, 1, 5)),
    "chunks": (lambda m, x: x.chunk(2, 1)[0], (3, 8), None),
    "loop": (lambda m, x: sum(row for row in x), (3, 8), None),
    "place in the middle": (lambda m, x: x[:, 2], (2, 5, 3), (7, 5, 9)),
    "sides in one": (lambda m, x: x.flatten(1), (1, 3, 4), (6, 3, 4)),
    "table of the length": (lambda m, x: x * m.table, (3, 8, 8), (5, 8, 8)),
    "scale of attention": (
        lambda m, x: F.scaled_dot_product_attention(x, x, x),
        (1, 2, 4, 8),
        (3, 2, 7, 8),
    ),
}


# what reads sizes, the example's shape, the axes whose sizes it reads
READ: dict[str, tuple[Function, tuple[int, ...], tuple[int, ...]]] = {
    "one size": (lambda m, x: x.sum(1) / x.shape[1], (2, 4, 3), (1,)),
    "counted from the end": (lambda m, x: x / x.size(-1), (2, 4, 3), (2,)),
    "by keyword": (lambda m, x: x / x.size(dim=1), (2, 4, 3), (1,)),
    "length": (lambda m, x: x / len(x), (2, 4, 3), (0,)),
    "slice of the shape": (lambda m, x: x / sum(x.shape[1:]), (2, 4, 3), (1, 2)),
    "unpacked": (lambda m, x: x / [*x.shape][2], (2, 4, 3), (0, 1, 2)),
    "whole": (lambda m, x: x / x.shape.numel(), (2, 4, 3), (0, 1, 2)),
    "compared": (lambda m, x: x * (2 if x.shape[1:] == (4, 3) else 3), (2, 4, 3), (1, 2)),
    "compared whole": (lambda m, x: x * (2 if x.shape == (2, 4, 3) else 3), (2, 4, 3), (0, 1, 2)),
    "compared from the left": (
        lambda m, x: x * (2 if torch.Size([2, 4, 3]) == x.shape else 3),
        (2, 4, 3),
        (0, 1, 2),
    ),
    "joined from the left": (
        lambda m, x: x * (torch.Size([7]) + x.shape)[2],
        (2, 4, 3),
        (0, 1, 2),
    ),
    "kept for later": (lambda m, x: [shape := x.shape, x / shape[1]][1], (2, 4, 3), (1,)),
    "rank": (lambda m, x: x * len(x.shape) * x.ndim, (2, 4, 3), ()),
    "kind": (lambda m, x: x * isinstance(x.shape, torch.Size), (2, 4, 3), ()),
    "moved": (lambda m, x: x.transpose(0, 1) / x.transpose(0, 1).shape[0], (2, 4, 3), (1,)),
    "reduced": (lambda m, x: x.sum(0) / x.sum(0).shape[0], (2, 4, 3), (1,)),
    "two axes in one": (lambda m, x: torch.cat([x, x], 1).shape[1] * x, (2, 4, 3), (1,)),
    "of a weight": (lambda m, x: x * m.table.shape[0], (2, 4, 3), ()),
    "in place": (lambda m, x: x * x.clone().mul_(2).shape[2], (2, 4, 3), (2,)),
    "all of a slice": (lambda m, x: x[:, :4] * 2, (2, 4, 3), (1,)),
    "all of a slice, and a place": (lambda m, x: x[:, :4, 0] * 2, (2, 4, 3), (1,)),
    "all of a slice at the end": (lambda m, x: x[..., :3] * 2, (2, 4, 3), (2,)),
    "everything": (lambda m, x: x[...] + x[:], (2, 4, 3), ()),
}


@pytest.mark.parametrize("name", READ)
def test_a_size_that_is_read_is_fixed_and_no_other(name: str) -> None:
    function, shape, read = READ[name]
    model = Applied(function).eval()
    converted = convert(model, sample(*shape))
    for axis in range(len(shape)):
        other = sample(*(n + 2 * (axis == place) for place, n in enumerate(shape)))
        refusal = refused(converted, other)
        assert ("converted for" in refusal) == (axis in read), axis
        assert refusal or agrees(converted, model, other)


def test_a_size_of_the_other_input_is_read() -> None:
    model = Applied(lambda m, x, y: x * y.shape[1] + y.mean())
    converted = convert(model, sample(2, 3), sample(4, 5))
    assert agrees(converted, model, sample(6, 7), sample(3, 5))
    with pytest.raises(ValueError, match=r"args_1: converted for length 5"):
        converted.model(mx.zeros((2, 3)), mx.zeros((4, 6)))


def test_a_read_that_is_related_to_no_node_fixes_all() -> None:
    """The op lies in a graph of its own."""

    def function(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = x.sum(2)
            z = y / y.shape[0]
        return x * z[..., None]

    refusal = refused(convert(Applied(function), sample(2, 4, 3)), sample(2, 4, 5))
    assert "converted for" in refusal


def test_code_that_takes_no_shape_but_torchs() -> None:
    """Then a look at a shape is one at all its sizes."""
    model = Applied(lambda m, x: x * torch._C._infer_size(x.shape, x.mT.shape)[0])
    converted = convert(model, sample(2, 4, 4))
    assert agrees(converted, model, sample(2, 4, 4, seed=1))
    assert "converted for" in refused(converted, sample(2, 5, 5))
    assert "converted for" in refused(converted, sample(3, 4, 4))


def test_the_u_net_of_the_examples_takes_any_batch() -> None:
    """It reads the sizes of its skip connections, but for the batch."""
    model = UNet3d(widths=(4, 8)).eval()
    converted = convert(model, sample(1, 1, 8, 6, 4))
    assert agrees(converted, model, sample(2, 1, 8, 6, 4))
    for shape in ((1, 1, 7, 6, 4), (2, 1, 8, 10, 4), (1, 1, 8, 6, 5)):
        assert "converted for d 8, h 6 and w 4" in refused(converted, sample(*shape))


def by_length(x: torch.Tensor) -> torch.Tensor:
    return x * x.shape[0]


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    scaled = torch.jit.script(by_length)  # it reads the size where Python does not see it


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1) / x.shape[1]


@pytest.mark.parametrize("kind", ["traced by fx", "exported"])
def test_a_graph_that_reads_sizes_is_fixed(kind: str) -> None:
    x = sample(2, 8)
    model = (
        torch.fx.symbolic_trace(Mean())
        if kind == "traced by fx"
        else torch.export.export(Mean(), (x,)).module()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = mlxport.convert(model, x, verify=False)
    assert agrees(converted, Mean(), x)
    with pytest.raises(ValueError, match="converted for"):
        converted.model(mx.zeros((2, 12)))


@pytest.mark.parametrize("name", FIXED)
def test_what_is_fixed_is_checked(name: str) -> None:
    function, shape, open_shape = FIXED[name]
    model = Applied(function).eval()
    converted = convert(model, sample(*shape))
    assert agrees(converted, model, sample(*shape, seed=2))
    kept = [axis for axis, n in enumerate(shape) if open_shape is None or open_shape[axis] == n]
    raised = 0
    for axis in kept:
        other = tuple(n + (i == axis) for i, n in enumerate(shape))
        refusal = refused(converted, sample(*other))
        assert refusal or agrees(converted, model, sample(*other)), other
        assert not refusal or "converted for" in refusal
        raised += bool(refusal)
    assert raised
    if open_shape is not None:
        assert agrees(converted, model, sample(*open_shape))


def test_the_message_names_size_axis_and_option() -> None:
    converted = convert(Applied(lambda m, x: x[:, 2]), sample(2, 8, 3))
    with pytest.raises(ValueError, match=r"args_0: converted for length 8; --dynamic 1 \(dyn"):
        converted.model(mx.zeros((2, 9, 3)))
    with pytest.raises(ValueError, match="--dynamic 1"):
        converted.model(mx.zeros((2, 1, 3)))
    assert converted.model(mx.zeros((7, 8, 5))).shape == (7, 5)


def test_sizes_of_layers_are_left_to_them() -> None:
    """Channels and features: MLX raises there itself."""
    model = nn.Sequential(nn.Conv1d(3, 4, 1), nn.ReLU()).eval()
    converted = convert(model, sample(1, 3, 5))
    assert is_plain(converted.source)
    with pytest.raises(ValueError, match="input"):
        converted.model(mx.zeros((1, 4, 5)))


def test_reading_a_size_fixes_all_but_the_channels() -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.interpolate(self.first(x), size=x.shape[2:])

    source = convert(Read(), sample(1, 3, 4, 6)).source
    assert "shape[0] != 1" in source
    assert "shape[1]" not in source.partition("raise")[0]


def test_what_torchs_own_layers_read_does_not_matter() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4)).eval()
    converted = convert(model, sample(2, 4))
    assert agrees(converted, model, sample(5, 4))


def test_channels_last_inputs_are_checked_where_they_are_stored() -> None:
    model = Applied(lambda m, x: x / x.shape[3]).eval()
    converted = convert(model, sample(*IMAGE), channels_last=True)
    assert converted.model(mx.zeros((2, 6, 8, 4))).shape == (2, 6, 8, 4)
    with pytest.raises(ValueError, match="converted for"):
        converted.model(mx.zeros((2, 6, 9, 4)))


class PartlyFixed(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a.sum((1, 2)) * b[torch.arange(a.shape[0]), a.shape[1] - 1]


def test_an_axis_torch_fixes_is_refused_or_guarded() -> None:
    given = (sample(3, 4, 5), sample(3, 4))
    with pytest.raises(mlxport.ConversionError, match=r"axis 1 is 4, by .*test_fixed"):
        convert(PartlyFixed(), *given, dynamic=(0, 1))
    converted = convert(PartlyFixed(), *given, dynamic={"a": (0, 1), "b": (0, 1)})
    assert agrees(converted, PartlyFixed(), sample(3, 4, 5, seed=3), sample(3, 4, seed=4))
    with pytest.raises(ValueError, match="works at length 4 only"):
        converted.model(mx.zeros((6, 7, 5)), mx.zeros((6, 7)))


class TwoBatches(nn.Module):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return ids.mean(1) * mask[torch.arange(ids.shape[0]), 0]


def test_equal_sizes_of_an_axis_are_one() -> None:
    model = TwoBatches()
    converted = convert(model, sample(2, 8), sample(2, 8), dynamic=0)
    assert "Takes ids (n, 8), mask (n, 8)" in converted.source
    assert agrees(converted, model, sample(5, 8), sample(5, 8, seed=1))
    with pytest.raises(ValueError, match=r"expected n at mask.shape\[0\]"):
        converted.model(mx.zeros((3, 8)), mx.zeros((1, 8)))


def test_axes_per_input_are_sizes_of_their_own() -> None:
    """The relation that keeps every look-up inside of its table is checked."""
    model = TwoBatches()
    converted = convert(model, sample(2, 8), sample(2, 8), dynamic={"ids": 0, "mask": (0,)})
    assert converted.conversion.conditions == ("n <= n2",)
    assert agrees(converted, model, sample(3, 8), sample(5, 8))
    with pytest.raises(ValueError, match="expected n <= n2"):
        converted.model(mx.zeros((3, 8)), mx.zeros((2, 8)))


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [({"mask": 0, "x": 0}, "no argument x"), ({}, "expected an argument"), ({"ids": -1}, "0")],
)
def test_axes_per_input_that_make_no_sense(dynamic: Any, message: str) -> None:
    with pytest.raises(mlxport.ConversionError, match=message):
        convert(TwoBatches(), sample(2, 8), sample(2, 8), dynamic=dynamic)
