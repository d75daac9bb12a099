from collections import OrderedDict, deque
from functools import partial

import numpy as np
import pytest
import torch
from model_snapshot import differences, facts
from torch import nn

from mlxport.converter.torch_model.model_state import ModelState, trial_run


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


def quantized():
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def inference():
    with torch.inference_mode():
        return torch.ones(3)


TENSORS = {
    "strided": (lambda: torch.ones(3, 2).t(), lambda t: t.add_(1)),
    "expanded": (lambda: torch.ones(3, 1).expand(3, 4), lambda t: t[:, 0].add_(1)),
    "NaN": (lambda: torch.full((3,), float("nan")), lambda t: t[0].fill_(1)),
    "negative zero": (lambda: torch.zeros(3), lambda t: t.neg_()),
    "conjugate": (lambda: torch.ones(2, dtype=torch.complex64).conj(), lambda t: t.mul_(1j)),
    "float8": (lambda: torch.ones(3).to(torch.float8_e5m2), lambda t: t.copy_(torch.zeros(3))),
    "0-d": (lambda: torch.tensor(1), lambda t: t.add_(1)),
    "empty": (lambda: torch.ones(0), lambda t: t.resize_(2).fill_(1)),
    "sparse": (lambda: torch.eye(3).to_sparse(), lambda t: t.mul_(2)),
    "compressed": (lambda: torch.eye(3).to_sparse_csr(), lambda t: t.values().mul_(2)),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2)]), lambda t: t.mul_(2)),
    "of inference": (inference, lambda t: t.zero_()),
    "other data": (lambda: torch.ones(3), lambda t: setattr(t, "data", torch.zeros(2, 2))),
    "other dtype": (lambda: torch.ones(3), lambda t: setattr(t, "data", t.double())),
    "with a gradient": (lambda: torch.ones(3, requires_grad=True) * 2, lambda t: t.data.add_(1)),
    "flag": (lambda: torch.ones(3), lambda t: t.requires_grad_()),
}


@pytest.mark.filterwarnings("ignore:.*(prototype|beta).*")
@pytest.mark.parametrize(("make", "change"), TENSORS.values(), ids=TENSORS)
def test_a_tensor_of_every_kind_is_put_back(make, change):
    model = nn.Module()
    model.kept = [make()]
    before, state = facts(model), ModelState(model)
    with torch.no_grad(), torch.inference_mode(model.kept[0].is_inference()):
        change(model.kept[0])
    assert differences(before, facts(model))
    state.restore()
    assert differences(before, facts(model)) == []
    assert state.changes() == []


class Slotted:
    __slots__ = ("items", "value")

    def __init__(self):
        self.items, self.value = [1], None


class Holder(nn.Module):
    shared: dict[str, int] = {}  # noqa: RUF012
    count = 0

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.slotted, self.numbers = Slotted(), np.arange(3)
        self.generator, self.drawn = torch.Generator(), np.random.default_rng(0)
        self.ordered, self.last = OrderedDict(a=1, b=2), deque([1, 2], maxlen=2)
        self.pair = ([1], {2: [3]})
        number, store = 0, []

        def hook(module, given, result):
            nonlocal number
            number += 1
            store.append(result)

        self.layer.register_forward_hook(hook)
        self.bound = partial(self.layer.forward, input=torch.ones(2))


OBJECTS = {
    "closure": lambda m: m.layer(torch.ones(2)),
    "a hook": lambda m: m.layer.register_forward_pre_hook(print),
    "a hook removed": lambda m: m.layer._forward_hooks.clear(),
    "the order of hooks": lambda m: m.layer._forward_hooks.update({-1: print}),
    "a slot": lambda m: setattr(m.slotted, "value", 1),
    "an object's list": lambda m: m.slotted.items.append(2),
    "an array": lambda m: m.numbers.__setitem__(0, 5),
    "a generator": lambda m: torch.rand(1, generator=m.generator),
    "NumPy's generator": lambda m: m.drawn.random(),
    "an order": lambda m: m.ordered.move_to_end("a"),
    "a deque": lambda m: m.last.append(3),
    "within a tuple": lambda m: m.pair[1][2].append(4),
    "a class's dict": lambda m: m.shared.update(a=1),
    "a class's number": lambda m: setattr(type(m), "count", 1),
    "a new attribute of a class": lambda m: setattr(type(m), "more", 1),
    "the class": lambda m: setattr(m.layer, "__class__", nn.Identity),
    "a module": lambda m: setattr(m, "layer", nn.Identity()),
    "a new module": lambda m: m.add_module("more", nn.Identity()),
    "an argument of a partial": lambda m: m.bound.keywords.update(input=None),
    "a gradient": lambda m: m.layer.weight.sum().backward(),
    "frozen": lambda m: m.layer.weight.requires_grad_(False),
    "a mode": lambda m: m.layer.eval(),
    "an attribute of a parameter": lambda m: setattr(m.layer.weight, "note", 1),
}


@pytest.mark.parametrize("change", OBJECTS.values(), ids=OBJECTS)
def test_an_object_of_every_kind_is_put_back(change):
    model = Holder()
    before, state = facts(model), ModelState(model)
    change(model)
    if "more" not in vars(Holder):
        assert differences(before, facts(model))
    state.restore()
    assert differences(before, facts(model)) == []
    assert "more" not in vars(Holder)


@pytest.mark.parametrize("write", [torch.Tensor.zero_, lambda p: p.data[0].add_(1)])
def test_a_parameter_is_copied_when_it_is_written_to(write):
    model = nn.Linear(2, 2)
    before = facts(model)
    with trial_run(model), torch.no_grad():
        write(model.weight)
        assert differences(before, facts(model))
    assert differences(before, facts(model)) == []


def test_what_fails_is_put_back_too():
    model = Holder()
    before = facts(model)
    with pytest.raises(RuntimeError, match="shapes"), trial_run(model):
        model.layer(model.layer(torch.ones(2)).new_ones(3))
    assert differences(before, facts(model)) == []
