"""What PyTorch does not train is frozen in the emitted model, where the rest is trained."""

import re

import pytest
import torch
from mlx.utils import tree_flatten
from torch import nn

import mlxport


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.norm(self.lin(x)) * self.gain


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4))
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.table = nn.Embedding(5, 4)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 5, bias=False))
        self.head[2].weight = self.table.weight
        self.register_buffer("scale", torch.full((4,), 2.0))

    def forward(self, ids):
        x = self.table(ids) * self.scale + self.shift
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def freeze(*prefixes):
    def apply(model):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(prefixes))

    return apply


CASES = {
    "nothing": (freeze("no such"), []),
    "all: a model for inference": (lambda model: model.requires_grad_(False), []),
    "a layer's weight": (
        freeze("blocks.0.lin.weight"),
        ['self.blocks[0].lin.freeze(keys="weight", recurse=False)'],
    ),
    "a layer": (freeze("blocks.0.lin"), ["self.blocks[0].lin.freeze()"]),
    "a module of a list": (freeze("blocks.1"), ["self.blocks[1].freeze()"]),
    "a list": (freeze("blocks"), ["for layer in self.blocks:", "    layer.freeze()"]),
    "a parameter of a module of several": (
        freeze("blocks.2.gain"),
        ['self.blocks[2].freeze(keys="gain", recurse=False)'],
    ),
    "a parameter of the model": (freeze("shift"), ['self.freeze(keys="shift", recurse=False)']),
    "a tied table": (freeze("table"), ["self.table.freeze()"]),
    "part of a Sequential": (freeze("head.0"), ["self.head[0].freeze()"]),
    "two places": (freeze("shift", "head.0.bias"), None),
}


@pytest.mark.parametrize(("apply", "lines"), CASES.values(), ids=CASES.keys())
def test_parameters_that_train_are_pytorchs(apply, lines):
    torch.manual_seed(0)
    model = Net()
    apply(model)
    converted = mlxport.convert(model, torch.tensor([[0, 4], [1, 2]]))
    assert converted.report.passed
    found = [name for name, _ in tree_flatten(converted.model.trainable_parameters())]
    wanted = [name for name, p in model.named_parameters() if p.requires_grad]
    if not wanted:
        wanted = [name for name, _ in model.named_parameters()]
    assert sorted(found) == sorted(wanted)
    if lines is not None:
        init = converted.source.partition("class Net")[2].partition("    def __call__")[0]
        written = re.findall(r"^        (.*freeze\(.*\)|for .*:)$", init, re.MULTILINE)
        assert [line for line in written if '"scale"' not in line] == lines


def test_a_frozen_model_can_be_trained_whole():
    model = Net()
    freeze("blocks")(model)
    converted = mlxport.convert(model, torch.tensor([[0, 4]]), verify=False).model
    converted.unfreeze()
    found = [name for name, _ in tree_flatten(converted.trainable_parameters())]
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())


def test_a_folded_weight_norm_is_frozen_with_its_parts():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)).requires_grad_(False)
    model = nn.Sequential(layer, nn.Linear(4, 2))
    converted = mlxport.convert(model, torch.randn(2, 4)).model
    found = [name for name, _ in tree_flatten(converted.trainable_parameters())]
    assert found == ["layers.1.weight", "layers.1.bias"]
