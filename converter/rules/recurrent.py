"""Rules for LSTM, GRU, RNN and their cells. Parameters are copied unchanged, with their names."""

from __future__ import annotations

import operator
from typing import Any

import torch

from mlxport import layers
from mlxport.converter.rules.entries import entry_of
from mlxport.converter.rules.registry import Axes, LayerSpec, ResultNames, changed, rule

# forward also creates zeros if no states are given, and unpacks the results
_AUXILIARY_OPS = ("aten.zeros.default", str(operator.getitem))
_UNPACKED = "no PackedSequence; run sequences of one length together, or each alone"


@rule(
    torch.nn.LSTM,
    ops=["aten.lstm.input"],
    auxiliary_ops=_AUXILIARY_OPS,
    target="layers.LSTM",
    restrictions=_UNPACKED,
)
def lstm(module: torch.nn.LSTM) -> LayerSpec:
    """``layers.LSTM``: MLX's is one layer in one direction, without projection."""
    proj_size = changed({"proj_size": 0}, proj_size=module.proj_size)
    return _network(layers.LSTM, module, ("output", ("h_n", "c_n")), proj_size)


@rule(
    torch.nn.GRU,
    ops=["aten.gru.input"],
    auxiliary_ops=_AUXILIARY_OPS,
    target="layers.GRU",
    restrictions=_UNPACKED,
)
def gru(module: torch.nn.GRU) -> LayerSpec:
    """Our layer of the same name: MLX's is one layer in one direction."""
    return _network(layers.GRU, module, ("output", "h_n"), {})


@rule(
    torch.nn.RNN,
    ops=["aten.rnn_tanh.input", "aten.rnn_relu.input"],
    auxiliary_ops=_AUXILIARY_OPS,
    target="layers.RNN",
    restrictions=_UNPACKED,
)
def rnn(module: torch.nn.RNN) -> LayerSpec:
    """Our layer of the same name: MLX's is one layer in one direction."""
    nonlinearity = "relu" if module.mode == "RNN_RELU" else "tanh"
    extra = changed({"nonlinearity": "tanh"}, nonlinearity=nonlinearity)
    return _network(layers.RNN, module, ("output", "h_n"), extra)


@rule(
    torch.nn.LSTMCell,
    ops=["aten.lstm_cell.default"],
    auxiliary_ops=_AUXILIARY_OPS,
    target="layers.LSTMCell",
)
def lstm_cell(module: torch.nn.LSTMCell) -> LayerSpec:
    """Our layer of the same name: MLX has no cells."""
    return _cell(layers.LSTMCell, module, ("h", "c"), {})


@rule(
    torch.nn.GRUCell,
    ops=["aten.gru_cell.default"],
    auxiliary_ops=_AUXILIARY_OPS,
    target="layers.GRUCell",
)
def gru_cell(module: torch.nn.GRUCell) -> LayerSpec:
    """Our layer of the same name: MLX has no cells."""
    return _cell(layers.GRUCell, module, "h", {})


@rule(
    torch.nn.RNNCell,
    ops=["aten.rnn_tanh_cell.default", "aten.rnn_relu_cell.default"],
    auxiliary_ops=_AUXILIARY_OPS,
    target="layers.RNNCell",
)
def rnn_cell(module: torch.nn.RNNCell) -> LayerSpec:
    """Our layer of the same name: MLX has no cells."""
    extra = changed({"nonlinearity": "tanh"}, nonlinearity=module.nonlinearity)
    return _cell(layers.RNNCell, module, "h", extra)


def _network(target: Any, module: Any, results: ResultNames, extra: dict[str, Any]) -> LayerSpec:
    defaults = {
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
    }
    arguments = changed(defaults, **{name: getattr(module, name) for name in defaults})
    return _spec(target, module, results, arguments | extra)


def _cell(target: Any, module: Any, results: ResultNames, extra: dict[str, Any]) -> LayerSpec:
    return _spec(target, module, results, changed({"bias": True}, bias=module.bias) | extra)


def _spec(target: Any, module: Any, results: ResultNames, arguments: dict[str, Any]) -> LayerSpec:
    # tied layers share a parameter, which has several keys in the state dict
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    return LayerSpec(
        target,
        (module.input_size, module.hidden_size),
        arguments,
        tuple(entry_of(name) for name in names),
        axes=Axes.LOGICAL,
        results=results,
    )
