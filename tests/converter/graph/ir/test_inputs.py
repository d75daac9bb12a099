"""What a model may take, held to PyTorch through the whole conversion."""

import re
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport

Pair = namedtuple("Pair", "a b")


@dataclass
class Batch:
    image: Any
    mask: Any = None


torch.export.register_dataclass(Batch, serialized_type_name="mlxport.tests.graph.Batch")


class Net(nn.Module):
    """Adds up whatever it is given, each tensor with another weight."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x, m=None, q=2, d=None, *, k=None, **more):
        leaves = torch.utils._pytree.tree_leaves((m, d, k, more))
        tensors = [t for t in leaves if isinstance(t, torch.Tensor)]
        y = self.layer(x) * (q if isinstance(q, (int, float)) else 1)
        for i, tensor in enumerate(tensors):
            y = y - (i + 2) * tensor
        return y


class Spread(nn.Module):
    def forward(self, *xs, scale):
        return sum((i + 1) * x for i, x in enumerate(xs)) * scale


def t(*shape):
    return torch.randn(*(shape or (2, 3)))


# args, kwargs; the parameters of __call__; what the docstring says is fixed
INPUTS = {
    "one": ((t(),), {}, "x: mx.array", None),
    "positional": ((t(), t(3)), {}, "x: mx.array, m: mx.array", None),
    "by keyword": ((), {"m": t(), "x": t()}, "x: mx.array, m: mx.array", None),
    "None": ((t(), None), {"q": None}, "x: mx.array, m: None = None, q: None = None", None),
    "one left out": ((t(),), {"d": t()}, "x: mx.array, *, d: mx.array", None),
    "a number between": (
        (t(), t(), 5, t()),
        {},
        "x: mx.array, m: mx.array, q: int = 5, d: mx.array | None = None",
        "q=5",
    ),
    "keyword-only": ((t(), t()), {"k": t()}, "x: mx.array, m: mx.array, *, k: mx.array", None),
    "more keywords": (
        (t(),),
        {"z": t(), "b": t(3)},
        "x: mx.array, *, z: mx.array, b: mx.array",
        None,
    ),
    "constants": (
        (t(), None, 0.5),
        {"d": "a-b", "k": True, "n": float("inf")},
        'x: mx.array, m: None = None, q: float = 0.5, d: str = "a-b", *, k: bool = True, '
        "n: float = mx.inf",
        'q=0.5, d="a-b", k=True, n=mx.inf',
    ),
    "texts": (
        (t(),),
        {"d": "\u00e9" * 40, "k": "x" * 100},
        'x: mx.array, *, d: str = "' + "\\xe9" * 40 + '", k: str = "' + "x" * 100 + '"',
        'd="' + "\\xe9" * 40 + '", k="' + "x" * 100 + '"',
    ),
    "a tuple": ((t(), (t(), t(3))), {}, "x: mx.array, m: tuple", None),
    "a list": ((t(), [t(), None, t(3)]), {}, "x: mx.array, m: list", None),
    "a named tuple": ((t(), Pair(t(), t(3))), {}, "x: mx.array, m: tuple", None),
    "a dict": ((t(), {"b": t(), "a": t(3)}), {}, "x: mx.array, m: dict", None),
    "an ordered dict": ((t(), OrderedDict(b=t(), a=t(3))), {}, "x: mx.array, m: dict", None),
    "a dataclass": ((t(), Batch(t(), t(3))), {}, "x: mx.array, m: dict", None),
    "nested": (
        (t(), {"a": [t(), (t(3), 7)], "b": {"c": t(2, 1)}}),
        {},
        "x: mx.array, m: dict",
        'm["a"][1][1]=7',
    ),
    "empty containers": (
        (t(), (), 2, {}),
        {},
        "x: mx.array, m: tuple = (), q: int = 2, d: dict = {}",
        "q=2",
    ),
    "a 0-d tensor": ((t(), torch.tensor(2.5)), {}, "x: mx.array, m: mx.array", None),
    "integers": ((t(), torch.arange(3)), {}, "x: mx.array, m: mx.array", None),
    "booleans": ((t(), torch.tensor([True, False, True])), {}, "x: mx.array, m: mx.array", None),
    "the same twice": ((lambda x: (x, x))(t()), {}, "x: mx.array, m: mx.array", None),
}


@pytest.mark.parametrize(("args", "kwargs", "formals", "fixed"), INPUTS.values(), ids=INPUTS)
def test_arguments_are_pytorchs(args, kwargs, formals, fixed):
    result = mlxport.convert(Net(), args, kwargs)
    assert result.report.passed, result.report.to_text()
    head = re.search(r"def __call__\((.*?)\) -> mx.array:", result.source, re.DOTALL)
    assert head is not None
    assert re.sub(r"\s+", " ", head[1]).strip(" ,") == f"self, {formals}"
    said = re.findall(r'Fixed when converted:\s(.*?)\.\n"""', result.source, re.DOTALL)
    assert [text.replace("\n", " ") for text in said] == ([] if fixed is None else [fixed])


def test_all_positional_arguments_are_numbered():
    result = mlxport.convert(Spread(), (t(), t(), t()), {"scale": t()})
    assert result.report.passed, result.report.to_text()
    formals = "xs_0: mx.array, xs_1: mx.array, xs_2: mx.array, *, scale: mx.array"
    assert formals in re.sub(r"\s+", " ", result.source)


def test_a_fixed_argument_is_taken_at_its_value():
    model = mlxport.convert(Net(), (t(), t(), 5, t()), verify=False).model
    x = mx.zeros((2, 3))
    assert mx.array_equal(model(x, x, 5, x), model(x, x, d=x))
    with pytest.raises(TypeError, match="missing argument: d"):
        model(x, x, 5)
    with pytest.raises(ValueError, match="converted for q=5"):
        model(x, x, q=7, d=x)


def test_a_nested_argument_is_read_by_key():
    batch = {"image": t(), "scale": [t(3)]}
    source = mlxport.convert(Net(), (t(),), {"d": batch}, verify=False).source
    assert 'd["image"]' in source
    assert 'd["scale"][0]' in source
    assert 'Takes x (2, 3), d["image"] (2, 3), d["scale"][0] (3,);' in source


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

    def forward(self, batch, time):
        x, y = batch["x"], batch["pair"][0]
        return {"y": self.first(x) + self.second(y) * time + self.second(x)}


@pytest.mark.parametrize(("channels_last", "transposes"), [(False, 3), (True, 0)])
def test_a_nested_image_is_transposed_once_at_the_entrance(channels_last, transposes):
    batch = {"x": t(2, 3, 5, 4), "pair": (t(2, 3, 5, 4), None)}
    result = mlxport.convert(Images(), (batch, torch.tensor(3)), channels_last=channels_last)
    assert result.report.passed, result.report.to_text()
    assert result.conversion.transposes == transposes


class Shadow(nn.Module):
    """Parameters with the names of variables and of Python's own words."""

    def forward(self, x, y, layer, nn, data):
        y = torch.relu(x) * y
        z = y + layer
        return z * nn + y - data["x"] * z + data["y"]


def test_no_variable_hides_an_argument():
    given = (t(), t(), t(), t(), {"x": t(), "y": t()})
    report = mlxport.convert(Shadow(), given).report
    assert report.passed, report.to_text()


class Names(nn.Module):
    """Two names that are one in MLX."""

    def forward(self, mx, mx_):
        return mx - 2 * mx_


def test_arguments_have_names_of_their_own():
    result = mlxport.convert(Names(), (t(), t()))
    assert result.report.passed, result.report.to_text()
    assert "(self, mx_: mx.array, mx__: mx.array)" in result.source


def test_a_submodule_may_be_given_anything():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x, m):
            y = self.net(x, (m, {"b": x}), 3, k=m)
            return self.net(y, None, 2, d=[x])

    report = mlxport.convert(Outer(), (t(), t(3))).report
    assert report.passed, report.to_text()
