"""What a model may give, held to PyTorch through the whole conversion."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import CaptureError

Pair = namedtuple("Pair", "mean scale")


@dataclass
class Output:
    logits: Any = None
    loss: Any = None
    steps: int = 0


torch.export.register_dataclass(Output, serialized_type_name="mlxport.tests.graph.Output")


class Net(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.run, self.layer = run, nn.Linear(3, 3)

    def forward(self, x):
        return self.run(x, self.layer(x))


class Gives(nn.Module):
    """A part of a model with a result of its own."""

    def __init__(self, run):
        super().__init__()
        self.part = Net(run)

    def forward(self, x):
        given = self.part(x)
        return given[1] - given[0]


# run(x, y) -> the result; its return in model.py; the names of its tensors
RESULTS = {
    "a tensor": (lambda x, y: y, "return self.layer(x)", ["output"]),
    "a pair": (lambda x, y: (y, x), "return (self.layer(x), x)", ["output[0]", "output[1]"]),
    "None": (lambda x, y: (y, None), "return (self.layer(x), None)", ["output[0]"]),
    "constants": (
        lambda x, y: [y, 3, 2.5, True, 'a "b"', float("-inf"), x.shape[0]],
        'return [self.layer(x), 3, 2.5, True, "a \\"b\\"", -mx.inf, 2]',
        ["output[0]"],
    ),
    "the same twice": (lambda x, y: (y, y), "return (layer, layer)", ["output[0]", "output[1]"]),
    "the input": (lambda x, y: x, "return x", ["output"]),
    "a dict": (
        lambda x, y: {"b": y, "a": {"c": (x * 2,), 0: None}},
        'return {"b": self.layer(x), "a": {"c": (x * 2,), 0: None}}',
        ['output["b"]', 'output["a"]["c"][0]'],
    ),
    "an ordered dict": (
        lambda x, y: OrderedDict(b=y, a=x),
        'return {"b": self.layer(x), "a": x}',
        ['output["b"]', 'output["a"]'],
    ),
    "a named tuple": (
        lambda x, y: Pair(y, x + 1),
        "return (self.layer(x), x + 1)",
        ["output.mean", "output.scale"],
    ),
    "a dataclass": (
        lambda x, y: Output(y, None, 4),
        'return {"logits": self.layer(x), "steps": 4}',
        ["output.logits"],
    ),
    "a dataclass in a list": (
        lambda x, y: [Output((y, x)), x],
        'return [{"logits": (self.layer(x), x), "steps": 0}, x]',
        ["output[0].logits[0]", "output[0].logits[1]", "output[1]"],
    ),
}


@pytest.fixture
def x():
    return torch.randn(2, 3)


@pytest.mark.parametrize(("run", "line", "names"), RESULTS.values(), ids=RESULTS)
def test_a_result_is_nested_as_in_pytorch(run, line, names, x):
    result = mlxport.convert(Net(run), x)
    assert result.report.passed, result.report.to_text()
    assert line in result.source
    assert [entry.name for entry in result.report.outputs] == names
    assert len(result.conversion.modules[-1].outputs) == len(names)


@pytest.mark.parametrize(
    "run",
    [lambda x, y: Output(y, x), lambda x, y: Pair(x, y), lambda x, y: (x, y, None, 3)],
    ids=["a dataclass", "a named tuple", "a tuple"],
)
def test_a_result_inside_the_model_is_taken_apart(run, x):
    def apart(x, y):
        given = run(x, y)
        return (given.logits, given.loss) if isinstance(given, Output) else given

    report = mlxport.convert(Gives(apart), x).report
    assert report.passed, report.to_text()


def test_a_result_of_parameters(x):
    net = Net(lambda x, y: y)
    net.run = lambda x, y: {"y": y, "weight": net.layer.weight}
    report = mlxport.convert(net, x).report
    assert [entry.name for entry in report.outputs] == ['output["y"]', 'output["weight"]']
    assert report.passed, report.to_text()


def test_channels_last_holds_for_every_tensor_of_a_result():
    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            return {"image": y, "mean": y.mean((2, 3)), "given": x}

    result = mlxport.convert(Images(), torch.randn(1, 3, 6, 5), channels_last=True)
    assert result.report.passed, result.report.to_text()
    assert result.conversion.transposes == 0
    given = result.model(mx.zeros((1, 6, 5, 3)))
    assert {k: v.shape for k, v in given.items()} == {
        "image": (1, 4, 3, 4),
        "mean": (1, 4),
        "given": (1, 6, 5, 3),
    }


def test_the_docstring_names_what_is_given(x):
    source = mlxport.convert(Net(lambda x, y: Output(y, x)), x, verify=False).source
    assert "Takes x (2, 3); gives logits (2, 3), loss (2, 3); axes in PyTorch's order." in source


@pytest.mark.parametrize(
    "run", [lambda x, y: None, lambda x, y: (3, None), lambda x, y: {}], ids=["None", "3", "{}"]
)
def test_a_result_without_tensors_is_refused(run, x):
    with pytest.raises(CaptureError, match="returns no tensor"):
        mlxport.convert(Net(run), x)


def test_a_dict_with_keys_of_another_kind_is_refused(x):
    with pytest.raises(CaptureError, match=r"the model returns a dict with the key \(1, 2\)"):
        mlxport.convert(Net(lambda x, y: {(1, 2): y}), x)
