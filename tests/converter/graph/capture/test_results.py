"""Modules inside a model that give several tensors: each is held to its own counterpart."""

import dataclasses

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.output.lineage import lineage_of, record_lineage
from mlxport.converter.parity.verdict.entry import ALONE, IN_PLACE


class Part(nn.Module):
    def __init__(self, gives):
        super().__init__()
        self.layer, self.gives = nn.Linear(3, 3), gives

    def forward(self, x):
        a = self.layer(x)
        b = torch.tanh(a)
        return self.gives(x, a, b, torch.relu(b))


class Net(nn.Module):
    def __init__(self, gives, takes):
        super().__init__()
        self.part, self.takes = Part(gives), takes

    def forward(self, x):
        return self.takes(self.part(x))


# what the part gives, what of it is used, its return in model.py, which tensors are judged
PARTS = {
    "in the order computed": (
        lambda x, a, b, c: (a, b, c),
        lambda r: r[0] - 3 * r[1] + 5 * r[2],
        "return (layer, b, nn.relu(b))",
        [0, 1, 2],
    ),
    "backwards": (
        lambda x, a, b, c: (c, b, a),
        lambda r: r[0] - 3 * r[1] + 5 * r[2],
        "return (nn.relu(b), b, layer)",
        [0, 1, 2],
    ),
    "used in another order": (
        lambda x, a, b, c: (b, c, a),
        lambda r: r[2] - 3 * r[1] + 5 * r[0],
        "return (b, nn.relu(b), layer)",
        [0, 1, 2],
    ),
    "one left out": (
        lambda x, a, b, c: (c, b, a),
        lambda r: r[2] - 3 * r[0],
        "return (nn.relu(mx.tanh(layer)), layer)",
        [0, 2],
    ),
    "one alone used": (
        lambda x, a, b, c: (c, b),
        lambda r: r[1] * 2,
        "return mx.tanh(self.layer(x))",
        [1],
    ),
    "with others between": (
        lambda x, a, b, c: [3, c, None, {"z": b, "y": a}],
        lambda r: r[3]["y"] - 3 * r[3]["z"] + 5 * r[1],
        "return (nn.relu(b), b, layer)",
        [0, 1, 2],
    ),
    "its input too": (
        lambda x, a, b, c: (x, b, a),
        lambda r: r[0] - 3 * r[1] + 5 * r[2],
        "return (mx.tanh(layer), layer)",
        [1, 2],
    ),
}


@pytest.mark.parametrize(("gives", "takes", "line", "judged"), PARTS.values(), ids=PARTS)
def test_every_result_is_judged_as_itself(gives, takes, line, judged):
    result = mlxport.convert(Net(gives, takes), torch.randn(2, 3))
    assert result.report.passed, result.report.to_text()
    entries = [entry for entry in result.report.entries if entry.path == "part"]
    assert [entry.output for entry in entries] == judged
    assert all(set(entry.verdicts) == {IN_PLACE, ALONE} for entry in entries)
    assert line in result.source


def test_two_calls_may_use_different_results():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Part(lambda x, a, b, c: (c, b, a))

        def forward(self, x):
            first = self.part(x)
            return self.part(first[2] - first[0])[1] + first[1]

    report = mlxport.convert(Twice(), torch.randn(2, 3)).report
    assert report.passed, report.to_text()


def test_a_fault_in_one_result_is_seen():
    net = Net(*PARTS["one left out"][:2]).eval()
    model = mlxport.convert(net, torch.randn(2, 3), verify=False).model
    kind = type(model.part)

    def swapped(self, x):
        return kind.__call__(self, x)[::-1]

    object.__setattr__(model.part, "__class__", type("Part", (kind,), {"__call__": swapped}))
    report = mlxport.verify(model, net, torch.randn(2, 3))
    assert report.culprit == "part"


def test_results_that_cannot_be_told_are_not_judged():
    net = Net(*PARTS["backwards"][:2]).eval()
    model = mlxport.convert(net, torch.randn(2, 3), verify=False).model
    conversion = lineage_of(model).conversion
    modules = [
        dataclasses.replace(m, results=() if m.path == "part" else None) for m in conversion.modules
    ]
    record_lineage(model, dataclasses.replace(conversion, modules=tuple(modules)))
    report = mlxport.verify(model, net, torch.randn(2, 3))
    (entry,) = [entry for entry in report.entries if entry.path == "part"]
    reason = "which of its results is which cannot be told"
    assert entry.skipped == {IN_PLACE: reason, ALONE: reason}
    assert report.passed
