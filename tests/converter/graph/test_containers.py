"""Containers that compute: a ModuleDict, ModuleList or Sequential with a ``forward`` of its own."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import mlxport

X = torch.randn(2, 4)


def linear(inputs=4):
    return nn.Linear(inputs, 4)


class InTurn(nn.ModuleDict):
    def forward(self, x):
        for layer in self.values():
            x = layer(x)
        return x


class ByName(nn.ModuleDict):
    def forward(self, x):
        return OrderedDict((name, layer(x)) for name, layer in self.items())


class Dense(nn.ModuleDict):
    def forward(self, x):
        found = [x]
        for layer in self.values():
            found.append(layer(torch.cat(found, -1)))
        return torch.cat(found, -1)


class Listed(nn.ModuleList):
    def forward(self, x):
        for layer in self:
            x = layer(x) + 1
        return x


class Collected(nn.Sequential):
    def forward(self, x):
        return [layer(x) for layer in self]


class Uses(nn.Module):
    """Calls a container, or the layers in it, or both."""

    def __init__(self, inner, run=lambda inner, x: inner(x)):
        super().__init__()
        self.inner, self.run = inner, run

    def forward(self, x):
        return self.run(self.inner, x)


def in_turn():
    return InTurn({"a": linear(), "b": linear()})


NETS = {
    "a dict": lambda: Uses(in_turn()),
    "a dict, the model itself": in_turn,
    "a dict of results": lambda: Uses(ByName({"0": linear(), "layer_0": linear(), "1": linear()})),
    "a dense block": lambda: nn.Sequential(Dense({"a": linear(), "b": linear(8)}), linear(12)),
    "a dict that is only read": lambda: Uses(in_turn(), lambda d, x: d["a"](x) + d["b"](x)),
    "a dict called and read": lambda: Uses(in_turn(), lambda d, x: d(d["b"](x))),
    "a dict called twice": lambda: Uses(in_turn(), lambda d, x: d(d(x))),
    "a list": lambda: Uses(Listed([linear(), linear()])),
    "a list, the model itself": lambda: Listed([linear(), linear()]),
    "a sequence": lambda: Uses(Collected(linear(), linear())),
    "one in another": lambda: Uses(InTurn({"x": in_turn(), "y": Listed([in_turn()])})),
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_converts(make):
    report = mlxport.convert(make(), X).report
    assert report.passed
    assert not report.notes or "not judged" not in " ".join(report.notes)


def test_is_a_class_of_its_name():
    result = mlxport.convert(Uses(in_turn()), X)
    assert "class InTurn(nn.Module):" in result.source
    assert "self.inner = InTurn()" in result.source
