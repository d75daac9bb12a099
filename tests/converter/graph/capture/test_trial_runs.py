import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.capture.trial_runs import try_forward

X = torch.arange(6.0).reshape(2, 3) - 2


class Net(nn.Module):
    def __init__(self, run, **attributes):
        super().__init__()
        self.run, self.layer = run, nn.Linear(3, 3)
        self.register_buffer("mean", torch.zeros(3))
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def remembers(m, x):
    m.last = m.layer(x)
    return m.last


def counts(m, x):
    m.count += 1
    return m.layer(x)


def counts_and_tells(m, x):
    m.count += 1
    return m.layer(x) * m.count


def adds_up(m, x):
    m.last = m.last + x
    return m.last


def gathers(m, x):
    m.calls.append(x)
    return sum(m.calls)


def writes(m, x):
    m.plain.add_(1)
    return x + m.plain


def follows(m, x):
    m.mean.mul_(0.9).add_(0.1 * x.mean(0))
    return x - m.mean


def once(m, x):
    if m.count == 0:
        m.count = 1
        return x
    return {"x": x}


def new_generator(m, x):
    generator = torch.Generator().manual_seed(0)
    return x + torch.rand(3, generator=generator)


def kept_generator(m, x):
    return x + torch.empty(3).normal_(generator=m.generator.manual_seed(1))


def seeds(m, x):
    torch.manual_seed(0)
    return x + torch.randn(3)


def seeds_apart(m, x):
    drawn = torch.randn(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return x + torch.randperm(3) + drawn


def seeds_for_later(m, x):
    drawn = torch.randn(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
    return x + drawn


SEEDED_DRAWS = {
    "a new generator": (new_generator, {}, "a torch.Generator that it names"),
    "kept generator": (kept_generator, {"generator": torch.Generator()}, "that it names"),
    "torch's generator by name": (
        lambda m, x: x + torch.rand(3, generator=torch.default_generator),
        {},
        "a torch.Generator that it names",
    ),
    "dropout after a seed": (
        lambda m, x: seeds(m, nn.functional.dropout(x, training=True)),
        {},
        "seeds PyTorch's random numbers itself",
    ),
    "seeds apart": (seeds_apart, {}, "seeds PyTorch's random numbers itself"),
}


@pytest.mark.parametrize("name", SEEDED_DRAWS)
def test_random_numbers_that_are_the_models_own_are_refused_where_it_draws_them(name):
    run, attributes, said = SEEDED_DRAWS[name]
    with pytest.raises(CaptureError, match=said) as refused:
        mlxport.convert(Net(run, **attributes).eval(), X)
    assert f"{__file__}:" in str(refused.value)
    assert "buffer" in str(refused.value)


def drifts(step):
    """Let the result, which is about 1, move by a step at each call."""

    def run(model, x):
        model.count += 1
        return x * 0 + 1 + step * model.count

    return run


HARMLESS = {
    "keeps a result": (remembers, {"last": None}),
    "counts": (counts, {"count": 0}),
    "drifts by rounding": (drifts(0.95e-4), {"count": 0}),
    "draws torch's numbers": (lambda m, x: x + torch.randn(3), {}),
    "seeds after it drew": (seeds_for_later, {}),
    "gives NaN": (lambda m, x: x.log(), {}),
    "writes into its input": (lambda m, x: x.add_(1), {}),
    "gives constants": (lambda m, x: (x, float("nan"), None, "a"), {}),
}

STATEFUL = {
    "a number": (counts_and_tells, {"count": 0}, "count"),
    "a little more than rounding": (drifts(1.05e-4), {"count": 0}, "count"),
    "a tensor": (adds_up, {"last": torch.zeros(2, 3)}, "last"),
    "a list": (gathers, {"calls": []}, "calls"),
    "a tensor written": (writes, {"plain": torch.zeros(3)}, "plain"),
    "a buffer": (follows, {}, "mean"),
    "another form": (once, {"count": 0}, "count"),
}


@pytest.mark.parametrize(("run", "attributes"), HARMLESS.values(), ids=HARMLESS)
def test_what_the_result_does_not_depend_on_is_harmless(run, attributes):
    model, before = Net(run, **attributes).eval(), X.clone()
    calls = try_forward(model, (X,), {}).calls
    assert calls[""][0].argument.position == 0
    assert torch.equal(X, before)
    assert all(vars(model)[name] == value for name, value in attributes.items())


@pytest.mark.parametrize(("run", "attributes", "name"), STATEFUL.values(), ids=STATEFUL)
def test_state_that_the_result_depends_on_is_found(run, attributes, name):
    model = Net(run, **attributes).eval()
    before = {key: str(value) for key, value in vars(model).items()}
    tried = try_forward(model, (X,), {})
    assert (tried.same, tried.changes) == (False, [name])
    assert {key: str(value) for key, value in vars(model).items()} == before


@pytest.mark.parametrize("kind", ["a number", "a list", "another form"])
def test_state_in_what_is_no_tensor_is_refused(kind):
    run, attributes, name = STATEFUL[kind]
    model = Net(run, **attributes).eval()
    before = {key: str(value) for key, value in vars(model).items()}
    with pytest.raises(CaptureError) as caught:
        mlxport.convert(model, X)
    assert str(caught.value).splitlines()[1] == f"  {name}"
    assert "gives another result when it is called again" in str(caught.value)
    assert {key: str(value) for key, value in vars(model).items()} == before


def test_other_random_numbers_are_refused():
    model = Net(lambda m, x: x * random.random())
    with pytest.raises(CaptureError, match=r"\n  nothing: it may draw random numbers"):
        mlxport.convert(model, X)


def test_the_random_state_is_left_as_it_was():
    model = Net(lambda m, x: x + torch.randn(3))
    before = torch.get_rng_state()
    try_forward(model, (X,), {})
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("first", [True, False], ids=["the first", "the second"])
def test_a_side_of_a_condition_that_changes_what_the_other_reads_is_refused(first):
    def reads_and_changes(m, x):
        def changes(v):
            m.plain = m.plain + 1
            return v

        sides = [changes, lambda v: v * m.plain] if first else [lambda v: v * m.plain, changes]
        return torch.cond(x.sum() > 0, *sides, (x,))

    with pytest.raises(CaptureError, match="its functions change what the other side reads"):
        try_forward(Net(reads_and_changes, plain=torch.ones(3)), (X,), {})


@dataclass
class Unregistered:
    x: Any


REFUSED = {
    "takes": ((Unregistered(X),), lambda m, d: d.x, r"the model takes the dataclass Unregistered"),
    "takes a dtype": ((X, torch.float16), lambda m, x, d: x, "the model takes a dtype"),
    "returns": ((X,), lambda m, x: Unregistered(x), "the model returns the dataclass Unreg"),
    "returns a module": ((X,), lambda m, x: (x, m), "the model returns a Net"),
}


@pytest.mark.parametrize(("args", "run", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_counterpart_is_refused(args, run, message):
    with pytest.raises(CaptureError, match=message):
        try_forward(Net(run), args, {})


def test_modules_that_give_several_tensors_are_named():
    class Gives(nn.Module):
        def __init__(self, *results):
            super().__init__()
            self.results = results

        def forward(self, x):
            return [x * 1 if given == "x" else given for given in self.results]

    parts = {"one": ("x", None, 3), "two": ("x", "x"), "none": (3, None)}
    model = Net(lambda m, x: [m.parts[name](x)[0] for name in parts], parts=nn.ModuleDict())
    model.parts.update({name: Gives(*results) for name, results in parts.items()})
    assert try_forward(model, (X,), {}).several == {"parts.two"}


def test_a_rejection_tells_every_input():
    given = ((X, (X[0].int(), None)), {"mode": "a"})
    with pytest.raises(CaptureError) as caught:
        try_forward(Net(lambda m, x, pair, mode: x + torch.ones(7)), *given)
    inputs = "args_0=float32 (2, 3), args_1=int32 (3,) None, mode='a'"
    assert f"Net itself rejects the example input {inputs}, at " in str(caught.value)
    assert "x + torch.ones(7)" in str(caught.value)
