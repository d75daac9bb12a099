import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import ParityError
from mlxport.converter.output.lineage import lineage_of
from mlxport.converter.plan.structure import Structure


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x, scale=1, mask=None, batch=None, **more):
        y = self.layer(x) * scale
        if mask is not None:
            y = y + mask
        if batch is not None:
            y = y * batch["a"] - batch["b"]
        return {"y": y, "n": scale} if more.get("named", True) else {"z": y}


def a():
    return torch.randn(2, 3)


@pytest.fixture(scope="module")
def net():
    return Net().eval()


@pytest.fixture(scope="module")
def converted(net):
    return mlxport.convert(net, a(), {"scale": 2, "mask": a(), "batch": {"a": a(), "b": a()}}).model


GOOD = {
    "as converted": ((), {"scale": 2}),
    "in another order": ((), {"batch": {"b": 1, "a": 1}, "scale": 2}),
    "by position": ((2,), {}),
}


@pytest.mark.parametrize(("args", "kwargs"), GOOD.values(), ids=GOOD)
def test_arguments_are_told_by_name(converted, net, args, kwargs):
    batch = {key: a() for key in kwargs.pop("batch", "ab")}
    report = mlxport.verify(converted, net, (a(), *args), {**kwargs, "batch": batch, "mask": a()})
    assert report.passed, report.to_text()


def test_every_other_argument_is_told(converted, net):
    with pytest.raises(ParityError) as caught:
        mlxport.verify(converted, net, (a(), 3), {"batch": {"a": a(), "b": a(), "c": a()}, "k": 1})
    message = str(caught.value)
    assert "  mask: a tensor is missing" in message
    assert '  batch["c"]: a tensor more' in message
    assert "  scale: 3, 2 when converted" in message
    assert "  k: 1, not given when converted" in message


def test_a_tensor_of_other_axes_is_told(converted, net):
    given = {"scale": 2, "mask": torch.randn(3), "batch": {"a": a(), "b": a()}}
    with pytest.raises(ParityError, match=r"inputs of \[2, 1, 2, 2\] axes.*takes \[2, 2, 2, 2\]"):
        mlxport.verify(converted, net, a(), given)


def test_another_result_is_told(net):
    model = mlxport.convert(net, a(), {"named": True}, verify=False).model
    arguments = lineage_of(model).conversion.signature.arguments
    arguments["named"] = Structure.constant(False)
    with pytest.raises(ParityError, match=r'gives output\["z"\] in PyTorch.*output\["y"\]'):
        mlxport.verify(model, net, a(), {"named": False})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda y: {"y": y["y"], "n": 3}, 'output["n"]: 3 instead of 1'),
        (lambda y: (y["y"], y["n"]), "output: a tuple of 2 instead of a dict of 2"),
        (lambda y: {"n": y["n"], "y": y["y"]}, "keys ['n', 'y'] instead of ['y', 'n']"),
    ],
    ids=["a constant", "a container", "the order of keys"],
)
def test_a_result_nested_otherwise_fails(net, change, problem):
    model = mlxport.convert(net, a(), {"scale": 1}, verify=False).model
    kind = type(model)
    changed = type(kind.__name__, (kind,), {"__call__": lambda s, *x: change(kind.__call__(s, *x))})
    object.__setattr__(model, "__class__", changed)
    report = mlxport.verify(model, net, a(), {"scale": 1})
    assert not report.passed
    assert problem in report.verdict
    assert 'at output["y"]' in report.verdict
