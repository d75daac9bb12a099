"""Whole models with recurrent layers: leaves that take states and give several results."""

import mlx.core as mx
import pytest
import torch
from mlx.utils import tree_flatten
from torch import nn

import mlxport
from mlxport.converter.errors import CaptureError

# torch says so where it computes projections, which it does correctly
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")


class Net(nn.Module):
    """Builds its layers from keyword arguments and runs a function given as ``run``."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs):
        return self.run(self, *inputs)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.lstm = nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, 3)

    def forward(self, words):
        return self.head(self.lstm(self.embed(words))[0])


class Translator(nn.Module):
    """Hands the last states of one network, h and c of the same shape, to another."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(4, 4)
        self.decoder = nn.LSTM(4, 4)

    def forward(self, x, y):
        _, (h, c) = self.encoder(x)
        first, (h, _) = self.decoder(y, (h, c))
        second, _ = self.decoder(y, (c, h))
        return first, second, h


class ConvLSTMCell(nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x, h, c):
        i, f, g, o = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class ConvLSTM(nn.Module):
    """Runs a convolutional LSTM over frames, and an ordinary one over what it saw in each."""

    def __init__(self):
        super().__init__()
        self.cell = ConvLSTMCell(2, 3)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, frames):
        n, steps, _, height, width = frames.shape
        h = frames.new_zeros(n, self.cell.hidden, height, width)
        c = torch.zeros_like(h)
        seen = []
        for t in range(steps):
            h, c = self.cell(frames[:, t], h, c)
            seen.append(h.mean(dim=(2, 3)))
        return self.lstm(torch.stack(seen, dim=1))[1][1], h


class OwnForward(nn.LSTM):
    def forward(self, x):
        return super().forward(x * 2)[1][1]


class Subclass(nn.GRU):
    def extra_repr(self):
        return "computes what a GRU computes"


def cells(m, x):
    hc = h = None
    outputs = []
    for t in range(x.shape[0]):
        hc = m.lstm(x[t], hc)
        h = m.gru(hc[0], h)
        outputs.append(m.rnn(h, hc[1]))
    return torch.stack(outputs)


def residual(m, x):
    for layer in m.stack:
        x = layer(x)[0] + x
    return x


def hooked():
    layer = nn.LSTM(4, 4)
    layer.register_forward_hook(lambda module, args, output: (output[0] * 2, output[1]))
    return layer


def swapping():
    layer = nn.LSTM(4, 4)
    layer.register_forward_hook(lambda m, args, output: (output[0], output[1][::-1]))
    return layer


def normed():
    return nn.utils.parametrizations.weight_norm(nn.LSTM(4, 4), "weight_hh_l0")


def learned(m, x):
    return m.gru(x, m.h0.expand(-1, x.shape[1], -1))


X = (6, 3, 4)
STATE = (1, 3, 4)
MODELS = {
    "tagger": (Tagger, None),
    "translator": (Translator, [X, X]),
    "conv lstm": (ConvLSTM, [(2, 3, 2, 5, 4)]),
    "output": (lambda: Net(lambda m, x: m.l(x)[0], l=nn.GRU(4, 4)), [X]),
    "last state": (lambda: Net(lambda m, x: m.l(x)[1][-1], l=nn.GRU(4, 4, 2)), [X]),
    "cell state": (lambda: Net(lambda m, x: m.l(x)[1][1], l=nn.LSTM(4, 4)), [X]),
    "all results": (lambda: Net(lambda m, x: m.l(x), l=nn.LSTM(4, 4, proj_size=2)), [X]),
    "given states": (
        lambda: Net(lambda m, x, h, c: m.l(x, (c, h)), l=nn.LSTM(4, 4)),
        [X, STATE, STATE],
    ),
    "states by name": (
        lambda: Net(lambda m, x, h: m.l(hx=h, input=x)[0], l=nn.RNN(4, 4)),
        [X, STATE],
    ),
    "learned state": (
        lambda: Net(learned, gru=nn.GRU(4, 4), h0=nn.Parameter(torch.randn(1, 1, 4))),
        [X],
    ),
    "relu": (lambda: Net(lambda m, x: m.l(x)[0], l=nn.RNN(4, 4, nonlinearity="relu")), [X]),
    "cells": (
        lambda: Net(cells, lstm=nn.LSTMCell(4, 4), gru=nn.GRUCell(4, 4), rnn=nn.RNNCell(4, 4)),
        [X],
    ),
    "list": (lambda: Net(residual, stack=nn.ModuleList([nn.LSTM(4, 4), nn.GRU(4, 4)])), [X]),
    "unbatched": (
        lambda: Net(lambda m, x: (m.l(x), m.c(x[0])), l=nn.LSTM(4, 4), c=nn.GRUCell(4, 4)),
        [(6, 4)],
    ),
    "hooked": (lambda: Net(lambda m, x: m.l(x), l=hooked()), [X]),
    "states swapped by a hook": (lambda: Net(lambda m, x: m.l(x), l=swapping()), [X]),
    "weight norm": (lambda: Net(lambda m, x: m.l(x)[0], l=normed()), [X]),
    "own forward": (lambda: Net(lambda m, x: m.l(x), l=OwnForward(4, 4)), [X]),
    "subclass": (lambda: Net(lambda m, x: m.l(x)[0], l=Subclass(4, 4)), [X]),
    "alone": (lambda: nn.LSTM(4, 4, 2), [X]),
    "called twice": (lambda: Net(lambda m, x: m.l(m.l(x)[0])[1], l=nn.GRU(4, 4)), [X]),
}


def inputs_of(shapes):
    if shapes is None:
        return (torch.randint(0, 11, (3, 6)),)
    return tuple(torch.randn(shape) for shape in shapes)


@pytest.mark.parametrize(("build", "shapes"), MODELS.values(), ids=MODELS)
def test_parity(build, shapes):
    inputs = inputs_of(shapes)
    model = build().eval()
    converted = mlxport.convert(model, inputs)
    report = mlxport.verify(converted.model, model, inputs)
    assert report.passed, report
    assert converted.report is None or converted.report.passed


LEAVES = {
    "tagger": "x, _ = self.lstm(self.embed(words))",
    "translator": "_, (h_n, c_n) = self.encoder(x)",
    "cell state": "_, (_, c_n) = self.l(inputs_0)",
    "all results": "x, (h_n, c_n) = self.l(inputs_0)",
    "given states": "self.l(inputs_0, (inputs_2, inputs_1))",
    "states by name": "x, _ = self.l(inputs_0, inputs_1)",
    "cells": "h, c = self.lstm(inputs_0[0])",
    "subclass": "self.l = GRU(4, 4)",
}


@pytest.mark.parametrize(("name", "line"), LEAVES.items(), ids=LEAVES)
def test_layers_are_called_as_in_torch(source_of, name, line):
    build, shapes = MODELS[name]
    assert line in source_of(build(), *inputs_of(shapes))


@pytest.mark.parametrize("name", ["hooked", "own forward", "unbatched", "alone"])
def test_what_is_more_than_the_layer_goes_op_by_op(source_of, name):
    build, shapes = MODELS[name]
    assert "from .layers.recurrent.functions import lstm" in source_of(build(), *inputs_of(shapes))


def test_first_states_fit_any_batch_and_length():
    model = Tagger().eval()
    converted = mlxport.convert(model, inputs_of(None)).model
    words = torch.randint(0, 11, (5, 9))
    got = converted(mx.array(words.numpy()))
    with torch.no_grad():
        want = model(words)
    assert mx.allclose(got, mx.array(want.numpy()), atol=1e-5)


def test_parameters_keep_their_names():
    model = Tagger()
    converted = mlxport.convert(model, inputs_of(None)).model
    assert {name for name, _ in tree_flatten(converted.parameters())} == set(model.state_dict())


def test_packed_sequences_are_refused():
    def run(m, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 4, 3]))
        return m.l(packed)[0].data

    with pytest.raises(CaptureError, match=r"^l \(LSTM\) takes a PackedSequence.*of one length"):
        mlxport.convert(Net(run, l=nn.LSTM(4, 4)), inputs_of([X]))
