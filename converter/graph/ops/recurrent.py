"""Handlers of recurrent networks and cells called as functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlxport.converter.graph.ir.code import OMIT
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value, logical_order
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.recurrent import cells, functions

_EVAL = "without dropout"


@op("aten.lstm.input", restrictions=_EVAL)
def lstm(
    cx: Context, x: Value, hx: Sequence[Value], weights: Sequence[Value], *options: Any
) -> tuple[Value, ...]:
    """``torch.lstm``: whole sequences, which give the last hidden and cell states too."""
    return _network(cx, functions.lstm, x, hx, weights, *options)


@op("aten.gru.input", restrictions=_EVAL)
def gru(
    cx: Context, x: Value, hx: Value, weights: Sequence[Value], *options: Any
) -> tuple[Value, ...]:
    """``torch.gru``: whole sequences, which give the last hidden states too."""
    return _network(cx, functions.gru, x, hx, weights, *options)


@op("aten.rnn_tanh.input", restrictions=_EVAL)
def rnn_tanh(
    cx: Context, x: Value, hx: Value, weights: Sequence[Value], *options: Any
) -> tuple[Value, ...]:
    """``torch.rnn_tanh``: whole sequences, which give the last hidden states too."""
    return _network(cx, functions.rnn, x, hx, weights, *options)


@op("aten.rnn_relu.input", restrictions=_EVAL)
def rnn_relu(
    cx: Context, x: Value, hx: Value, weights: Sequence[Value], *options: Any
) -> tuple[Value, ...]:
    """``torch.rnn_relu``: whole sequences, which give the last hidden states too."""
    return _network(cx, functions.rnn, x, hx, weights, *options, nonlinearity="relu")


def _network(
    cx: Context,
    function: Callable[..., Any],
    x: Value,
    hx: Value | Sequence[Value],
    weights: Sequence[Value],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    nonlinearity: str | None = None,
) -> tuple[Value, ...]:
    if train and dropout:
        raise cx.refuse(f"dropout={dropout} in training is random; pass train=False at inference")
    return cx.function_many(
        function,
        cx.logical(x),
        cx.logical(hx) if isinstance(hx, Value) else tuple(map(cx.logical, hx)),
        [cx.logical(weight) for weight in weights],
        orders=[logical_order(len(shape)) for shape, _ in cx.results],
        has_biases=OMIT if has_biases else False,
        bidirectional=bidirectional or OMIT,
        batch_first=batch_first or OMIT,
        nonlinearity=nonlinearity or OMIT,
    )


@op("aten.lstm_cell.default")
def lstm_cell(
    cx: Context, x: Value, hx: Sequence[Value], w_ih: Value, w_hh: Value, *biases: Value | None
) -> tuple[Value, ...]:
    """``torch.nn.functional.lstm_cell``: one step, which gives the hidden and the cell state."""
    orders = [logical_order(len(shape)) for shape, _ in cx.results]
    states = tuple(map(cx.logical, (x, *hx)))
    weights = cx.logical(w_ih), cx.logical(w_hh)
    named = _biases(cx, *biases)
    return cx.function_many(
        cells.lstm_cell, states[0], states[1:], *weights, orders=orders, **named
    )


@op("aten.gru_cell.default")
def gru_cell(
    cx: Context, x: Value, hx: Value, w_ih: Value, w_hh: Value, *biases: Value | None
) -> Value:
    """``torch.nn.functional.gru_cell``: one step."""
    arrays = map(cx.logical, (x, hx, w_ih, w_hh))
    return cx.function(cells.gru_cell, *arrays, **_biases(cx, *biases))


@op("aten.rnn_tanh_cell.default")
def rnn_tanh_cell(
    cx: Context, x: Value, hx: Value, w_ih: Value, w_hh: Value, *biases: Value | None
) -> Value:
    """``torch.nn.functional.rnn_tanh_cell``: one step."""
    arrays = map(cx.logical, (x, hx, w_ih, w_hh))
    return cx.function(cells.rnn_cell, *arrays, **_biases(cx, *biases))


@op("aten.rnn_relu_cell.default")
def rnn_relu_cell(
    cx: Context, x: Value, hx: Value, w_ih: Value, w_hh: Value, *biases: Value | None
) -> Value:
    """``torch.nn.functional.rnn_relu_cell``: one step."""
    arrays = map(cx.logical, (x, hx, w_ih, w_hh))
    return cx.function(cells.rnn_cell, *arrays, **_biases(cx, *biases), nonlinearity="relu")


def _biases(cx: Context, b_ih: Value | None = None, b_hh: Value | None = None) -> dict[str, Any]:
    named = {"bias_ih": b_ih, "bias_hh": b_hh}
    return {name: OMIT if bias is None else cx.logical(bias) for name, bias in named.items()}
