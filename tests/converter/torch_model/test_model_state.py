import pytest
import torch
from torch import nn

from mlxport.converter.torch_model.model_state import ModelState


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("none", None)
        self.plain = torch.tensor([1.0, float("nan")])
        self.count, self.name, self.last = 0, "a", None
        self.calls, self.known, self.seen = [], {"a": 1}, {1}
        self.inner = nn.Sequential(nn.Linear(2, 2))


def set_buffer(m):
    m.mean = torch.ones(2)


def set_none(m):
    m.none = torch.ones(2)


def nested_append(m):
    m.inner[0].trace = [1]


CHANGES = {
    "a number": (lambda m: setattr(m, "count", 1), "count"),
    "a text": (lambda m: setattr(m, "name", "b"), "name"),
    "a tensor set": (lambda m: setattr(m, "last", torch.ones(2)), "last"),
    "a new attribute": (lambda m: setattr(m, "new", 3), "new"),
    "a list": (lambda m: m.calls.append(3), "calls"),
    "a dict": (lambda m: m.known.update(a=2), "known"),
    "a set": (lambda m: m.seen.add(2), "seen"),
    "a tensor written": (lambda m: m.plain.add_(1), "plain"),
    "a tensor of another shape": (lambda m: m.plain.resize_(3).fill_(0), "plain"),
    "a buffer written": (lambda m: m.mean.add_(1), "mean"),
    "a buffer replaced": (set_buffer, "mean"),
    "a buffer that was None": (set_none, "none"),
    "another buffer": (lambda m: m.register_buffer("more", torch.ones(1)), "more"),
    "of a submodule": (nested_append, "inner.0.trace"),
}

SAME = {
    "nothing": lambda m: None,
    "an equal number": lambda m: setattr(m, "count", int("0")),
    "an equal text": lambda m: setattr(m, "name", "".join(["a"])),
    "the mode": lambda m: m.eval(),
    "added and taken away": lambda m: (m.calls.append(1), m.calls.pop()),
    "zero added": lambda m: m.mean.add_(0),
}


def contents(model):
    held = {n: v for m in model.modules() for n, v in vars(m).items() if n not in ("_buffers",)}
    plain = {n: list(v) if isinstance(v, (list, set)) else v for n, v in held.items()}
    texts = {n: str(v) for n, v in plain.items() if n != "training"}
    return texts, {n: str(b) for m in model.modules() for n, b in m._buffers.items()}


@pytest.mark.parametrize(("change", "name"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_named_and_put_back(change, name):
    model = Net()
    before, objects = contents(model), {n: id(v) for n, v in vars(model).items()}
    state = ModelState(model)
    with torch.no_grad():
        change(model)
    assert contents(model) != before
    assert state.changes() == [name]
    state.restore()
    assert contents(model) == before
    assert {n: id(v) for n, v in vars(model).items()} == objects
    assert ModelState(model).changes() == state.changes() == []


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_is_the_same_is_no_change(change):
    model = Net()
    state = ModelState(model)
    change(model)
    assert state.changes() == []


def test_every_change_is_named():
    model = Net()
    state = ModelState(model)
    model.count, model.inner.flag = 1, True
    model.mean.add_(1)
    assert state.changes() == ["count", "mean", "inner.flag"]
