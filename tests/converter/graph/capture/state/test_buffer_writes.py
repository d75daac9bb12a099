"""What a model may keep from call to call, and what is refused, by name."""

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import CaptureError

X = torch.arange(6.0).reshape(1, 2, 3)


class Keeps(nn.Module):
    def __init__(self, run, **kept):
        super().__init__()
        self.run = run
        for name, value in kept.items():
            if isinstance(value, torch.Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x):
        return self.run(self, x)


class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = Keeps(counts, count=torch.zeros(()))
        self.other = self.one

    def forward(self, x):
        return self.other(self.one(x))


def grows(m, x):
    m.cache = torch.cat([m.cache, x], 1)
    return m.cache.mean(1)


def sums(m, x):
    m.cache = torch.cat([m.cache, x], 1)
    return m.cache.sum(1)


def widens(m, x):
    m.count = m.count + x.mean()
    return x * m.count


def appends(m, x):
    m.calls = [*m.calls, x]
    return sum(m.calls)


def counts(m, x):
    m.count = m.count + 1
    return x * m.count


def counts_twice(m, x):
    m.number += 1
    return counts(m, x) * m.number


def made_anew(m, x):
    m.table = torch.full(x.shape, 2.0)
    return x * m.table


EMPTY = torch.zeros(1, 0, 3)
REFUSED = {
    "grows": (Keeps(sums, cache=EMPTY), r"another form.*\n  cache: it goes from \(1, 0, 3\) to"),
    "grows, seen by no result": (Keeps(grows, cache=EMPTY), r"\n  cache: it goes from"),
    "grows further in": (Around(Keeps(grows, cache=EMPTY)), r"\n  inner.cache: it goes from"),
    "made anew": (Keeps(made_anew, table=torch.zeros(0)), r"\n  table: it goes from \(0,\) to"),
    "another dtype": (
        Keeps(widens, count=torch.zeros((), dtype=torch.int32)),
        r"\n  count: it goes from int32 to float32\n",
    ),
    "a list": (Keeps(appends, calls=[]), r"another result.*\n  calls\n"),
    "a number besides": (
        Keeps(counts_twice, count=torch.zeros(()), number=0),
        r"another result.*\n  number\n",
    ),
    "two names": (TwoNames(), r"several places.*\n  one.count and other.count\n"),
}


@pytest.mark.parametrize(("model", "said"), REFUSED.values(), ids=REFUSED)
def test_what_no_array_of_one_form_keeps_is_refused(model, said):
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    with pytest.raises(CaptureError, match=said):
        mlxport.convert(model.eval(), X)
    for name, tensor in model.named_buffers():
        assert torch.equal(tensor, before[name])


def made_once(m, x):
    if m.table.shape != x.shape:
        m.table = torch.full(x.shape, 2.0)
    return x * m.table


def test_a_table_of_another_form_that_no_call_needs_of_another_is_no_state():
    model = Keeps(made_once, table=torch.zeros(0)).eval()
    result = mlxport.convert(model, X)
    assert result.report.passed
    assert not result.conversion.state
    assert model.table.shape == (0,)


def test_gradients_leave_a_written_buffer_without_history():
    def follows(m, x):
        m.mean.mul_(0.5).add_(x.mean())
        return x * m.mean

    model = Around(Keeps(follows, mean=torch.ones(()))).eval()
    mean = model.inner.mean
    report = mlxport.convert(nn.Sequential(nn.Linear(3, 3), model), X, gradients=True).report
    assert report.passed
    assert model.inner.mean is mean
    assert (mean.item(), mean.is_leaf, mean.requires_grad) == (1.0, True, False)
