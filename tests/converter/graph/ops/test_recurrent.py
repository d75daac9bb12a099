"""Recurrent ops called as functions, against torch."""

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

# torch says so where it computes projections, which it does correctly
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")

NETWORKS = {
    "lstm": (torch.lstm, torch.nn.LSTM),
    "gru": (torch.gru, torch.nn.GRU),
    "rnn_tanh": (torch.rnn_tanh, torch.nn.RNN),
    "rnn_relu": (torch.rnn_relu, torch.nn.RNN),
}
CELLS = {
    "lstm_cell": (torch.lstm_cell, torch.nn.LSTMCell),
    "gru_cell": (torch.gru_cell, torch.nn.GRUCell),
    "rnn_tanh_cell": (torch.rnn_tanh_cell, torch.nn.RNNCell),
    "rnn_relu_cell": (torch.rnn_relu_cell, torch.nn.RNNCell),
}


def run(function, module, train=False):
    """The op with the options of a module; takes the input, the states and the weights."""
    count = 2 if function is torch.lstm else 1

    def call(x, *tensors):
        states = tensors[:count]
        return function(
            x,
            states if count == 2 else states[0],
            tensors[count:],
            module.bias,
            module.num_layers,
            module.dropout,
            train,
            module.bidirectional,
            module.batch_first,
        )

    return call


def given(module, count, length=4, batch=3):
    rows = module.num_layers * (2 if module.bidirectional else 1)
    x = (batch, length) if module.batch_first else (length, batch)
    sizes = [module.proj_size or module.hidden_size, module.hidden_size][:count]
    states = [torch.randn(rows, batch, size) for size in sizes]
    return [torch.randn(*x, module.input_size), *states, *(p.detach() for p in module.parameters())]


OPTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "batch first": {"batch_first": True},
    "bidirectional": {"bidirectional": True},
    "layers": {"num_layers": 2, "dropout": 0.5},
    "all": {"bias": False, "batch_first": True, "bidirectional": True, "num_layers": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(assert_op_parity, name, options):
    function, cls = NETWORKS[name]
    module = cls(5, 4, **options)
    assert_op_parity(run(function, module), *given(module, 2 if name == "lstm" else 1))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_projected_lstm(assert_op_parity, bias):
    module = torch.nn.LSTM(5, 4, 2, bias=bias, bidirectional=True, proj_size=2)
    assert_op_parity(run(torch.lstm, module), *given(module, 2))


def test_emitted_call(lower_op):
    module = torch.nn.GRU(5, 4, batch_first=True)
    lowered = lower_op(run(torch.gru, module), *given(module, 1))
    assert lowered.source == "gru(a, b, [c, d, e, f], batch_first=True)"
    assert lowered.cx.model.imports == {"gru": "recurrent.functions"}


def test_dropout_in_training_is_refused(lower_op):
    module = torch.nn.GRU(5, 4, 2, dropout=0.5)
    with pytest.raises(Unsupported, match=r"dropout=0\.5 in training is random.*train=False"):
        lower_op(run(torch.gru, module, train=True), *given(module, 1))


def test_training_without_dropout(assert_op_parity):
    module = torch.nn.GRU(5, 4, 2)
    assert_op_parity(run(torch.gru, module, train=True), *given(module, 1))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", CELLS)
def test_cells(assert_op_parity, name, bias):
    function, cls = CELLS[name]
    module = cls(5, 4, bias=bias)
    weights = [p.detach() for p in module.parameters()]
    states = [torch.randn(3, 4) for _ in range(2 if name == "lstm_cell" else 1)]

    def call(x, *tensors):
        hx = tensors[:2] if name == "lstm_cell" else tensors[0]
        return function(x, hx, *tensors[len(states) :])

    assert_op_parity(call, torch.randn(3, 5), *states, *weights)
