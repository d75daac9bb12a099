"""Whole translations of models that keep state: buffers and attributes that ``forward`` writes."""

import copy

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import mlxport


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        self.count = self.count + 1
        return self.linear(x) * self.count


class Statistic(nn.Module):
    """An exponential moving average, in place, that begins at another value than zero."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((3,), 0.5))

    def forward(self, x):
        self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return x - self.mean


class Plain(nn.Module):
    """State in an attribute that is no buffer, assigned or written into."""

    def __init__(self, in_place):
        super().__init__()
        self.total, self.in_place = torch.ones(3), in_place

    def forward(self, x):
        if self.in_place:
            self.total += x.mean(0)
        else:
            self.total = self.total + x.mean(0)
        return x * self.total


class StreamingConv1d(nn.Module):
    def __init__(self, channels=3, kernel=3):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, kernel)
        context = torch.zeros(1, channels, kernel - 1)
        self.register_buffer("context", context, persistent=False)

    def forward(self, x):
        x = torch.cat([self.context, x], -1)
        self.context = x[..., -self.context.shape[-1] :]
        return self.conv(x)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(StreamingConv1d() for _ in range(3))

    def forward(self, x):
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return x


class Twice(nn.Module):
    """Calls one module with state twice."""

    def __init__(self):
        super().__init__()
        self.stream, self.statistic = StreamingConv1d(), Statistic()

    def forward(self, x):
        x = self.stream(torch.tanh(self.stream(x)))
        return self.statistic(self.statistic(x[0].T))


class Delay(nn.Module):
    """Gives what it was given at the call before."""

    def __init__(self):
        super().__init__()
        self.register_buffer("before", torch.zeros(2, 3))

    def forward(self, x):
        before = self.before
        self.before = x
        return before


class Delays(nn.Module):
    def __init__(self):
        super().__init__()
        self.delay = Delay()

    def forward(self, x):
        return self.delay(self.delay(x) * 2 + 1)


class RingCache(nn.Module):
    """Attention over the last keys and values, which go around in a ring."""

    def __init__(self, size=4, width=8):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.register_buffer("keys", torch.zeros(1, size, width))
        self.register_buffer("values", torch.zeros(1, size, width))
        self.register_buffer("position", torch.zeros(1, dtype=torch.long))

    def forward(self, x):
        size = self.keys.shape[1]
        place = self.position % size
        self.keys.index_copy_(1, place, self.key(x))
        self.values[:, place] = self.value(x)
        self.position += 1
        empty = torch.arange(size) >= self.position
        scores = self.query(x) @ self.keys.transpose(1, 2)
        return scores.masked_fill(empty, float("-inf")).softmax(-1) @ self.values


class Shifted(nn.Module):
    """Writes into views of its buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.arange(12.0).view(1, 12))

    def forward(self, x):
        self.last[:, :-3] = self.last[:, 3:].clone()
        self.last[:, -3:] = x
        return self.last.cumsum(1)


class Unread(nn.Module):
    """Keeps what it does not read itself."""

    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(3))
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        self.last.copy_(x.mean(0))
        return self.linear(x)


class Observer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        self.mean.lerp_(x.mean(0), 0.1)


class Observed(nn.Module):
    """Calls a module for what it keeps alone."""

    def __init__(self):
        super().__init__()
        self.observer, self.linear = Observer(), nn.Linear(3, 3)

    def forward(self, x):
        self.observer(x)
        return self.linear(x)


class Outer(nn.Module):
    """Writes the state of a module in it, between two calls of that."""

    def __init__(self):
        super().__init__()
        self.counter = Counter()

    def forward(self, x):
        y = self.counter(x)
        self.counter.count = self.counter.count * 2
        return y + self.counter(x)


class Before(nn.Module):
    """Reads state before and after it is written."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(3))

    def forward(self, x):
        before = self.scale.clone()
        self.scale.mul_(2).add_(x.mean(0))
        return self.scale - before


class Tracking(nn.Module):
    """Normalises by the batch at inference too, and asks for running statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        norm = self.norm
        statistics = norm.running_mean, norm.running_var
        return nn.functional.batch_norm(x, *statistics, norm.weight, norm.bias, True, 0.2)


class Gate(nn.Module):
    """Has a submodule of the name that the method has."""

    def __init__(self):
        super().__init__()
        self.reset = nn.Linear(3, 3)
        self.register_buffer("hidden", torch.zeros(2, 3))

    def forward(self, x):
        self.hidden = torch.sigmoid(self.reset(x)) * self.hidden + x
        return self.hidden


# model, shape of its input, what stands in its source
MODELS = {
    "counter": (Counter, (2, 3), "        self.count = self.count + 1\n"),
    "statistic": (Statistic, (2, 3), "self.mean = self.mean * 0.9 + 0.1 * mx.mean(x, axis=0)\n"),
    "attribute": (lambda: Plain(False), (2, 3), "self.total = self.total + mx.mean(x, axis=0)\n"),
    "attribute in place": (lambda: Plain(True), (2, 3), "self.total = self.total + mx.mean(x"),
    "streaming": (StreamingConv1d, (1, 3, 8), "        self.context = "),
    "stack": (Stack, (1, 3, 8), "        for layer in self.layers:\n            x = layer(x)\n"),
    "twice": (Twice, (1, 3, 8), "return self.statistic(self.statistic("),
    "delay": (Delay, (2, 3), "        self.before = x\n"),
    "delay twice": (Delays, (2, 3), "return self.delay(self.delay(x) * 2 + 1)\n"),
    "ring cache": (RingCache, (1, 1, 8), "self.position = self.position + 1\n"),
    "views": (Shifted, (1, 3), "        self.last = mx.slice_update("),
    "not read": (Unread, (2, 3), "        self.last = mx.mean(x, axis=0)\n"),
    "called for its state": (Observed, (2, 3), "        self.observer.mean = "),
    "written from outside": (Outer, (2, 3), "        self.counter.count = "),
    "read before": (Before, (2, 3), "return self.scale - "),
    "running statistics": (Tracking, (4, 3), "        self.norm.running_mean = "),
    "a name taken": (Gate, (2, 3), "    def reset_state(self):\n"),
}


@pytest.fixture(params=MODELS)
def case(request):
    make, shape, line = MODELS[request.param]
    torch.manual_seed(0)
    return make().eval(), torch.randn(shape), line


def _said(model, calls):
    with torch.no_grad():
        return [model(torch.clone(x)).clone() for x in calls]


def _close(arrays, tensors):
    pairs = zip(arrays, tensors, strict=True)
    return all(np.allclose(np.array(a), t.numpy(), atol=1e-5) for a, t in pairs)


def test_state_goes_from_call_to_call(case):
    model, x, line = case
    before = copy.deepcopy(model)
    result = mlxport.convert(model, x)
    assert result.report.passed, result.report
    assert [run.case for run in result.report.others] == ["call 2", "call 3", "call 4"]
    assert line in result.source
    # the guest
    assert vars(model).keys() == vars(before).keys()
    for name, tensor in [*before.state_dict().items(), *before.named_buffers()]:
        assert torch.equal(
            tensor,
            model.get_buffer(name)
            if name in dict(model.named_buffers())
            else model.get_parameter(name),
        )

    calls = [x, x + 1, x * 2, x, x - 1, x]
    expected = _said(before, calls)
    mlx = [mx.array(one.numpy()) for one in calls]
    assert _close([result.model(one) for one in mlx], expected)
    again = result.model.reset_state if "reset_state" in line else result.model.reset
    again()
    assert _close([result.model(one) for one in mlx], expected)
    again()
    state = result.model.state
    compiled = mx.compile(result.model, inputs=state, outputs=state)
    assert _close([compiled(one) for one in mlx], expected)


class Normed(nn.Module):
    """A weight norm by hook, which assigns a weight before each call, beside state."""

    def __init__(self, counts):
        super().__init__()
        with pytest.warns(FutureWarning, match="weight_norm"):
            self.linear = torch.nn.utils.weight_norm(nn.Linear(3, 3))
        self.total = torch.zeros(3)
        self.counts = counts

    def forward(self, x):
        if self.counts:
            self.total = self.total + x.mean(0)
        return self.linear(x) + self.total


@pytest.mark.parametrize("counts", [False, True], ids=["no state", "state"])
def test_a_weight_that_a_hook_makes_is_none(counts):
    result = mlxport.convert(Normed(counts).eval(), torch.randn(2, 3))
    assert result.report.passed
    assert "nn.Linear(3, 3)" in result.source
    assert ("self.total = self.total + " in result.source) == counts
    assert [one.path for one in result.conversion.state] == ["total"] * counts


class Shown(nn.Module):
    """Keeps its last activations in an attribute, for people to look at."""

    def __init__(self):
        super().__init__()
        self.linear, self.last = nn.Linear(3, 3), torch.zeros(2, 3)

    def forward(self, x):
        self.last = self.linear(x)
        return self.last.relu()


def test_an_attribute_that_no_result_depends_on_is_none():
    result = mlxport.convert(Shown().eval(), torch.randn(2, 3))
    assert result.report.passed
    assert "last" not in result.source
