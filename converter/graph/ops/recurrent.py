"""Recurrent networks and cells, where they are no module of their own that a rule serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxport.converter.graph.ir.code import OMIT
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value, identity
from mlxport.converter.graph.ops.registry import op

_EVAL = "without dropout"


@op("aten.lstm.input", restrictions=_EVAL)
def lstm(
    cx: Context, x: Value, hx: Sequence[Value], weights: Sequence[Value], *options: Any
) -> tuple[Value, ...]:
    """Ours, over whole sequences."""
    return _network(cx, "lstm", x, hx, weights, *options)


@op("aten.gru.input", restrictions=_EVAL)
def gru(
    cx: Context, x: Value, hx: Value, weights: Sequence[Value], *options: Any
) -> tuple[Value, ...]:
    """Ours, over whole sequences."""
    return _network(cx, "gru", x, hx, weights, *options)


@op("aten.rnn_tanh.input", restrictions=_EVAL)
def rnn_tanh(
    cx: Context, x: Value, hx: Value, weights: Sequence[Value], *options: Any
) -> tuple[Value, ...]:
    """Ours, over whole sequences."""
    return _network(cx, "rnn", x, hx, weights, *options)


@op("aten.rnn_relu.input", restrictions=_EVAL)
def rnn_relu(
    cx: Context, x: Value, hx: Value, weights: Sequence[Value], *options: Any
) -> tuple[Value, ...]:
    """Ours, over whole sequences."""
    return _network(cx, "rnn", x, hx, weights, *options, nonlinearity="relu")


def _network(
    cx: Context,
    function: str,
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
    cx.imports[function] = "recurrent.functions"
    return cx.emit_many(
        f"{function}(x, hx, weights, has_biases=b, bidirectional=d, batch_first=f, nonlinearity=n)",
        orders=[identity(len(shape)) for shape, _ in cx.results],
        x=cx.logical(x),
        hx=cx.logical(hx) if isinstance(hx, Value) else tuple(map(cx.logical, hx)),
        weights=[cx.logical(weight) for weight in weights],
        b=OMIT if has_biases else False,
        d=bidirectional or OMIT,
        f=batch_first or OMIT,
        n=nonlinearity or OMIT,
    )


@op("aten.lstm_cell.default")
def lstm_cell(
    cx: Context, x: Value, hx: Sequence[Value], *weights: Value | None
) -> tuple[Value, ...]:
    """Ours, one step."""
    cx.imports["lstm_cell"] = "recurrent.cells"
    return cx.emit_many(
        "lstm_cell(x, hx, w_ih, w_hh, bias_ih=b_ih, bias_hh=b_hh)",
        orders=[identity(len(shape)) for shape, _ in cx.results],
        x=cx.logical(x),
        hx=tuple(map(cx.logical, hx)),
        **_weights(cx, *weights),
    )


@op("aten.gru_cell.default")
def gru_cell(cx: Context, x: Value, hx: Value, *weights: Value | None) -> Value:
    """Ours, one step."""
    return _cell(cx, "gru_cell", x, hx, weights)


@op("aten.rnn_tanh_cell.default")
def rnn_tanh_cell(cx: Context, x: Value, hx: Value, *weights: Value | None) -> Value:
    """Ours, one step."""
    return _cell(cx, "rnn_cell", x, hx, weights)


@op("aten.rnn_relu_cell.default")
def rnn_relu_cell(cx: Context, x: Value, hx: Value, *weights: Value | None) -> Value:
    """Ours, one step."""
    return _cell(cx, "rnn_cell", x, hx, weights, nonlinearity="relu")


def _cell(
    cx: Context,
    function: str,
    x: Value,
    hx: Value,
    weights: Sequence[Value | None],
    nonlinearity: str | None = None,
) -> Value:
    cx.imports[function] = "recurrent.cells"
    return cx.emit(
        f"{function}(x, hx, w_ih, w_hh, bias_ih=b_ih, bias_hh=b_hh, nonlinearity=n)",
        x=cx.logical(x),
        hx=cx.logical(hx),
        n=nonlinearity or OMIT,
        **_weights(cx, *weights),
    )


def _weights(
    cx: Context,
    w_ih: Value | None,
    w_hh: Value | None,
    b_ih: Value | None = None,
    b_hh: Value | None = None,
) -> dict[str, Any]:
    named = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    return {name: OMIT if w is None else cx.logical(w) for name, w in named.items()}
