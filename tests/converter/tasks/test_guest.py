"""The user's torch model is a guest: whatever it keeps, calls leave it as it was."""

import collections
import functools
import itertools
import random
import threading
import warnings

import numpy as np
import pytest
import torch
from model_snapshot import left_alone
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import mlxport
from mlxport.converter.errors import CaptureError, ConversionError
from mlxport.testing import assert_parity

X, Y = torch.randn(2, 4), torch.randn(2, 4)
KEPT: dict[int, torch.Tensor] = {}


@pytest.fixture(autouse=True, scope="module")
def imported():
    """Import what a conversion imports, as that adds filters of warnings."""
    mlxport.convert(nn.Linear(2, 2), torch.ones(1, 2))


@pytest.fixture(autouse=True)
def fresh():
    """Let what models keep for all of their class begin empty."""
    KEPT.clear()
    of_module.cache_clear()


def ramp(size):
    return torch.arange(size) / 4


@functools.lru_cache
def of_module(size):
    return ramp(size)


class Base(nn.Module):
    """Two layers, and what ``set_up`` adds."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.set_up()

    def set_up(self):
        pass

    def forward(self, x):
        return self.two(self.one(x))


class HooksAtFirst(Base):
    """As transformers 5 collects hidden states."""

    def set_up(self):
        self.ready, self.seen = False, []

    def forward(self, x):
        if not self.ready:
            self.one.register_forward_hook(lambda m, given, result: self.seen.append(result))
            self.ready = True
        self.seen = []
        self.one(x)
        return self.two(self.seen[0])


class Anchors(Base):
    """As YOLO keeps its anchors."""

    shape, anchors = None, torch.empty(0)

    def forward(self, x):
        if self.shape != x.shape:
            self.shape, self.anchors = x.shape, ramp(x.shape[1])
        return self.one(x) + self.anchors


class AnchorsInBuffer(Base):
    shape = None

    def set_up(self):
        self.register_buffer("anchors", torch.empty(0), persistent=False)

    forward = Anchors.forward


class OfParameters(Base):
    """As timm's efficientformer caches its biases, with a gradient."""

    def set_up(self):
        self.table, self.cache = nn.Parameter(torch.randn(9)), {}

    def forward(self, x):
        if "bias" not in self.cache:
            self.cache["bias"] = self.table[torch.tensor([1, 3, 5, 7])]
        return self.one(x) + self.cache["bias"]


class OfParametersBefore(OfParameters):
    def set_up(self):
        super().set_up()
        self.cache["bias"] = self.table[torch.tensor([1, 3, 5, 7])]


class Cached(Base):
    @functools.lru_cache  # noqa: B019
    def ramp(self, size):
        return ramp(size)

    def forward(self, x):
        return self.one(x) + self.ramp(x.shape[1])


class CachedByModule(Base):
    def forward(self, x):
        return self.one(x) + of_module(x.shape[1])


class CachedInGlobal(Base):
    def forward(self, x):
        if x.shape[1] not in KEPT:
            KEPT[x.shape[1]] = ramp(x.shape[1])
        return self.one(x) + KEPT[x.shape[1]]


class CachedByClass(Base):
    cache: dict[int, torch.Tensor] = {}  # noqa: RUF012

    def forward(self, x):
        if x.shape[1] not in self.cache:
            self.cache[x.shape[1]] = ramp(x.shape[1])
        return self.one(x) + self.cache[x.shape[1]]


class SharedDict(nn.Module):
    def __init__(self):
        super().__init__()
        bus = {}

        class Writer(nn.Linear):
            def forward(self, x):
                self.bus["skip"] = x
                return super().forward(x)

        class Reader(nn.Linear):
            def forward(self, x):
                return super().forward(x) + self.bus.pop("skip")

        self.writer, self.reader = Writer(4, 4), Reader(4, 4)
        self.writer.bus = self.reader.bus = bus

    def forward(self, x):
        return self.reader(self.writer(x))


class HooksOfTheModel(Base):
    """Hooks whose closures write into the model itself, which a copy would not see."""

    def set_up(self):
        store, self.features = [], {}
        self.one.register_forward_hook(lambda m, x, y: self.features.update(one=y))
        self.one.register_forward_hook(lambda m, x, y: store.append(y))
        self.two.register_forward_pre_hook(lambda m, x: (store[-1] * 2 + self.features["one"],))


class InObject(Base):
    class State:
        def __init__(self):
            self.last, self.calls = None, []

    def set_up(self):
        self.state = self.State()

    def forward(self, x):
        self.state.last = self.one(x)
        self.state.calls.append(1)
        return self.two(self.state.last)


class Containers(Base):
    def set_up(self):
        self.last = collections.deque(maxlen=2)
        self.ordered = collections.OrderedDict(a=1, b=2)
        self.lists = collections.defaultdict(list)
        self.counts = np.zeros(3)

    def forward(self, x):
        x = self.one(x)
        self.last.append(x)
        self.ordered.move_to_end("a")
        self.lists["x"].append(x)
        self.counts += 1
        return self.two(self.last[-1])


class Unusual(Base):
    """What can be neither copied nor compared."""

    def set_up(self):
        self.lock, self.local = threading.Lock(), threading.local()
        self.numbers, self.items = (i for i in range(3)), iter([1, 2])
        self.cycle = itertools.cycle([1.0, 1.0])
        with FakeTensorMode():
            self.fake, self.left = torch.ones(2), [torch.ones(3)]
        self.sparse = torch.eye(4).to_sparse()
        self.nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        self.computed, self.part = self.one.weight * 2, self.one.weight[1:]

    def __deepcopy__(self, memo):
        raise TypeError("no copies")

    def forward(self, x):
        with self.lock:
            return self.two(self.one(x)) * next(self.cycle)


class Draws(Base):
    def set_up(self):
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x):
        torch.manual_seed(3)
        random.random()
        np.random.rand()
        return self.one(x)


class OfTheProcess(Base):
    def forward(self, x):
        warnings.simplefilter("always")
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(False)
        return self.one(x)


class MergesInEval(Base):
    """As LoRA merges its weights when the mode changes."""

    def set_up(self):
        self.more, self.merged = nn.Parameter(torch.randn(4, 4)), False

    def train(self, mode=True):
        if mode == self.merged:
            self.one.weight.data += self.more * (-1 if mode else 1)
            self.merged = not mode
        return super().train(mode)


class ShortensRows(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4, max_norm=0.5)

    def forward(self, x):
        return self.table((x.abs() * 3).long().clamp(0, 8))


class HasGradients(Base):
    def set_up(self):
        self.one(X).sum().backward()
        self.two.weight.requires_grad_(False)
        self.two.eval()


MODELS = [
    *(HooksAtFirst, Anchors, AnchorsInBuffer, OfParameters, OfParametersBefore, Cached),
    *(CachedByModule, CachedInGlobal, CachedByClass, SharedDict, HooksOfTheModel, InObject),
    *(Containers, Unusual, Draws, OfTheProcess, MergesInEval, ShortensRows, HasGradients),
]
quiet = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


def outputs(model):
    with torch.no_grad(), warnings.catch_warnings():
        return [model(X), model(Y)]


@quiet
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_converts_and_is_left_as_it_was(make):
    torch.manual_seed(1)
    model = make()
    with left_alone(model):
        result = mlxport.convert(model, X)
    assert result.report.passed, result.report.verdict
    torch.manual_seed(1)
    KEPT.clear()
    twin = make()
    training = model.training
    for found, expected in zip(outputs(model.eval()), outputs(twin.eval()), strict=True):
        assert torch.equal(found, expected)
    assert training
    assert_parity(result.model, model, Y)


CALLS = {
    "analyze": mlxport.analyze,
    "explain": mlxport.explain,
    "folded": functools.partial(mlxport.convert, fold_batchnorm=True, verify=False),
    "gradients": functools.partial(mlxport.convert, gradients=True, input_kinds=["impulse"]),
}


@quiet
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("make", [HooksAtFirst, SharedDict, Unusual, HasGradients])
def test_every_call_leaves_it(call, make):
    model = nn.Sequential(make(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    with left_alone(model):
        call(model, X)


class Raises(Base):
    def forward(self, x):
        self.count = 1
        self.one.weight.data.mul_(2)
        raise ValueError("no")


class Branches(HooksAtFirst):
    def forward(self, x):
        x = super().forward(x)
        return x if x.sum() > 0 else -x


class OfInputsInBuffer(Base):
    """Keeps what it computes of its first input: as it is called first, no other would do."""

    def set_up(self):
        self.register_buffer("first", torch.empty(0), persistent=False)

    def forward(self, x):
        if not self.first.numel():
            self.first = self.two(x)
        return self.one(x) + self.first


class OfParametersInBuffer(OfInputsInBuffer):
    def forward(self, x):
        if not self.first.numel():
            self.first = self.two.weight[0] * 2
        return self.one(x) + self.first


class Unsupported(HooksAtFirst):
    def forward(self, x):
        y = super().forward(x)
        return torch.as_strided_scatter(y, y, y.shape, y.stride())


REFUSED = [Raises, Branches, OfInputsInBuffer, OfParametersInBuffer, Unsupported]


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_is_left_as_it_was_where_it_is_refused(make):
    model = make()
    with left_alone(model), pytest.raises(ConversionError):
        mlxport.convert(model, X)


class Counts(Base):
    """Keeps state, which becomes that of the MLX model."""

    def set_up(self):
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        return self.one(x)


def test_what_a_model_counts_is_left():
    model = Counts()
    with left_alone(model):
        assert mlxport.convert(model, X, gradients=True).conversion.state


def test_a_broken_conversion_leaves_the_torch_model():
    model = OfParameters()
    result = mlxport.convert(model, X, verify=False)
    result.model.one.weight = result.model.one.weight * 2
    with left_alone(model), pytest.raises(AssertionError):
        assert_parity(result.model, model, X)


def test_an_error_of_the_first_call_is_not_torch_exports():
    with pytest.raises(CaptureError, match="Raises itself rejects the example input"):
        mlxport.analyze(Raises(), X)
