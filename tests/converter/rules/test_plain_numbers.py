"""Sizes and options that were computed by NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.rules.plain_numbers import plain_number, with_plain_numbers

TWO, THREE, FOUR = (np.prod([n]) for n in (2, 3, 4))  # np.int64
IMAGE = torch.randn(2, 3, 8, 7)

LAYERS = {
    "convolution": (nn.Conv3d(3, 4, (1, THREE, THREE)), torch.randn(1, 3, 2, 6, 5)),
    "all of a convolution": (
        nn.Conv2d(THREE, FOUR, THREE, stride=TWO, padding=TWO - 1, dilation=TWO),
        IMAGE,
    ),
    "transposed convolution": (
        nn.ConvTranspose2d(3, 4, THREE, stride=TWO, padding=TWO - 1, output_padding=TWO - 1),
        IMAGE,
    ),
    "average pool": (nn.AvgPool2d((1, TWO), stride=(1, TWO)), IMAGE),
    "max pool": (nn.MaxPool2d(TWO, TWO), IMAGE),
    "linear": (nn.Linear(TWO + 5, FOUR), IMAGE),
    "group norm": (nn.GroupNorm(np.int32(3), THREE, eps=np.float32(1e-3)), IMAGE),
    "layer norm": (nn.LayerNorm(np.int64(7), eps=np.float64(1e-3)), IMAGE),
    "leaky": (nn.LeakyReLU(np.float32(0.1)), IMAGE),
    "upsampling": (nn.Upsample(scale_factor=np.float64(2)), IMAGE),
    "embedding": (nn.Embedding(np.int64(9), FOUR), torch.randint(0, 9, (2, 3))),
    "in a layer of layers": (
        nn.TransformerEncoderLayer(FOUR, TWO, np.int64(8), batch_first=True),
        torch.randn(2, 3, 4),
    ),
}


@pytest.mark.parametrize(("layer", "x"), LAYERS.values(), ids=LAYERS)
def test_a_layer_converts(layer, x):
    result = mlxport.convert(nn.Sequential(layer), x)
    assert result.report.passed
    assert "np." not in result.source


class Computed(nn.Module):
    """Uses numbers and an array of NumPy's in ``forward``."""

    def __init__(self):
        super().__init__()
        self.count, self.factor, self.flag = np.int32(3), np.float32(0.1), np.bool_(True)
        self.offsets = np.linspace(0, 1, 7, dtype=np.float32)

    def forward(self, x):
        x = x * self.factor + np.sqrt(2.0) if self.flag else x
        x = x.repeat(1, self.count, 1, 1).clamp(np.float64(-0.5), np.float32(0.5))
        return (x + torch.from_numpy(self.offsets)).view(TWO, -1, np.int64(7))


def test_forward_may_compute_with_them():
    assert mlxport.convert(Computed(), IMAGE).report.passed


def test_the_module_keeps_its_own():
    layer = nn.Sequential(nn.MaxPool2d(TWO), nn.ReLU())
    plain = with_plain_numbers(layer)
    assert type(layer[0].kernel_size) is np.int64
    assert type(plain[0].kernel_size) is int
    assert plain[1] is layer[1]
    assert with_plain_numbers(layer[1]) is layer[1]


NUMBERS = {
    "integer": (np.int64(3), 3),
    "float": (np.float32(0.5), 0.5),
    "truth": (np.bool_(True), True),
    "tuple": ((1, np.int64(2)), (1, 2)),
    "nested": ([(np.int8(1), "a"), None], [(1, "a"), None]),
    "text": ("same", "same"),
}


@pytest.mark.parametrize(("value", "expected"), NUMBERS.values(), ids=NUMBERS)
def test_a_number_is_pythons(value, expected):
    found = plain_number(value)
    assert (type(found), repr(found)) == (type(expected), repr(expected))
