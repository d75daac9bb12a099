"""LSTM, GRU and Elman networks over sequences, with several layers and both directions.

``mlx.nn.LSTM``, ``GRU`` and ``RNN`` are one layer in one direction without projections, and return
the states of every step instead of the last.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx

from mlxport.layers.recurrent.cells import NONLINEARITIES, gru_gates, lstm_gates, project

States = tuple[mx.array, ...]
StepFunction = Callable[[mx.array, States], States]


class Weights(NamedTuple):
    """The parameters of one layer in one direction, as PyTorch has them.

    Attributes:
        weight_ih: ``(G, I)``, the gates' weights for the input.
        weight_hh: ``(G, H)``, those for the state; ``(G, P)`` where it is projected.
        bias_ih: ``(G,)`` or None.
        bias_hh: ``(G,)`` or None.
        weight_hr: ``(P, H)``, the projection of the state, or None.
    """

    weight_ih: mx.array
    weight_hh: mx.array
    bias_ih: mx.array | None = None
    bias_hh: mx.array | None = None
    weight_hr: mx.array | None = None


def lstm(
    x: mx.array,
    hx: Sequence[mx.array],
    weights: Sequence[mx.array],
    has_biases: bool = True,
    dropout: float = 0.0,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> tuple[mx.array, mx.array, mx.array]:
    """Run a long short-term memory over sequences; matches ``aten::lstm.input``.

    Args:
        x: ``(L, N, I)``, or ``(N, L, I)`` with ``batch_first``; L is at least 1.
        hx: ``h``, ``(layers * directions, N, P)``, and ``c``, ``(layers * directions, N, H)``.
            ``P`` is ``H`` unless the state is projected.
        weights: for every layer and direction in turn: ``weight_ih`` ``(4H, I)``, ``weight_hh``
            ``(4H, P)``, with biases ``bias_ih`` and ``bias_hh`` ``(4H,)``, and if ``P`` is not
            ``H``, ``weight_hr`` ``(P, H)``. Gates are in the order i, f, g, o.
        has_biases: whether there are biases among the weights.
        dropout: probability to drop an element between two layers, from 0 to 1.
        bidirectional: whether every layer runs over the sequence backwards as well.
        batch_first: whether ``x`` and the output are batch first; states never are.

    Returns:
        The output ``(L, N, directions * P)``, batch first if ``x`` is, and the last ``h`` and
        ``c``, shaped as the first.

    Raises:
        ValueError: the sequence is empty.
    """
    h, c = hx
    groups = _grouped(weights, has_biases, has_projections=h.shape[2] != c.shape[2])
    output, h, c = _run(_lstm_step, x, (h, c), groups, dropout, bidirectional, batch_first)
    return output, h, c


def gru(
    x: mx.array,
    hx: mx.array,
    weights: Sequence[mx.array],
    has_biases: bool = True,
    dropout: float = 0.0,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> tuple[mx.array, mx.array]:
    """Run gated recurrent units over sequences; matches ``aten::gru.input``.

    Args:
        x: ``(L, N, I)``, or ``(N, L, I)`` with ``batch_first``; L is at least 1.
        hx: ``(layers * directions, N, H)``.
        weights: for every layer and direction in turn: ``weight_ih`` ``(3H, I)``, ``weight_hh``
            ``(3H, H)``, and with biases ``bias_ih`` and ``bias_hh`` ``(3H,)``. Gates are in the
            order r, z, n.
        has_biases: whether there are biases among the weights.
        dropout: probability to drop an element between two layers, from 0 to 1.
        bidirectional: whether every layer runs over the sequence backwards as well.
        batch_first: whether ``x`` and the output are batch first; states never are.

    Returns:
        The output ``(L, N, directions * H)``, batch first if ``x`` is, and the last ``h``, shaped
        as the first.

    Raises:
        ValueError: the sequence is empty.
    """
    groups = _grouped(weights, has_biases)
    output, h = _run(_gru_step, x, (hx,), groups, dropout, bidirectional, batch_first)
    return output, h


def rnn(
    x: mx.array,
    hx: mx.array,
    weights: Sequence[mx.array],
    has_biases: bool = True,
    dropout: float = 0.0,
    bidirectional: bool = False,
    batch_first: bool = False,
    nonlinearity: str = "tanh",
) -> tuple[mx.array, mx.array]:
    """Run an Elman network over sequences; matches ``aten::rnn_tanh.input``, ``rnn_relu.input``.

    Args:
        x: ``(L, N, I)``, or ``(N, L, I)`` with ``batch_first``; L is at least 1.
        hx: ``(layers * directions, N, H)``.
        weights: for every layer and direction in turn: ``weight_ih`` ``(H, I)``, ``weight_hh``
            ``(H, H)``, and with biases ``bias_ih`` and ``bias_hh`` ``(H,)``.
        has_biases: whether there are biases among the weights.
        dropout: probability to drop an element between two layers, from 0 to 1.
        bidirectional: whether every layer runs over the sequence backwards as well.
        batch_first: whether ``x`` and the output are batch first; states never are.
        nonlinearity: ``"tanh"`` or ``"relu"``.

    Returns:
        The output ``(L, N, directions * H)``, batch first if ``x`` is, and the last ``h``, shaped
        as the first.

    Raises:
        ValueError: the sequence is empty.
    """

    def step_builder(weights: Weights) -> tuple[mx.array | None, StepFunction]:
        return _rnn_step(weights, NONLINEARITIES[nonlinearity])

    groups = _grouped(weights, has_biases)
    output, h = _run(step_builder, x, (hx,), groups, dropout, bidirectional, batch_first)
    return output, h


# -- one step ------------------------------------------------------------------------------------
# Each returns the bias that is added to the whole input at once, and the step function.

StepBuilder = Callable[[Weights], tuple[mx.array | None, StepFunction]]


def _lstm_step(weights: Weights) -> tuple[mx.array | None, StepFunction]:
    hidden = weights.weight_hh.T
    projection = None if weights.weight_hr is None else weights.weight_hr.T

    def step(x: mx.array, state: States) -> States:
        h, c = state
        h, c = lstm_gates(mx.addmm(x, h, hidden), c)
        return (h if projection is None else h @ projection), c

    return _summed_bias(weights), step


def _gru_step(weights: Weights) -> tuple[mx.array | None, StepFunction]:
    def step(x: mx.array, state: States) -> States:
        (h,) = state
        return (gru_gates(x, project(h, weights.weight_hh, weights.bias_hh), h),)

    return weights.bias_ih, step


def _rnn_step(
    weights: Weights, activation: Callable[[mx.array], mx.array]
) -> tuple[mx.array | None, StepFunction]:
    hidden = weights.weight_hh.T

    def step(x: mx.array, state: States) -> States:
        (h,) = state
        return (activation(mx.addmm(x, h, hidden)),)

    return _summed_bias(weights), step


def _summed_bias(weights: Weights) -> mx.array | None:
    if weights.bias_ih is None or weights.bias_hh is None:
        return None
    return weights.bias_ih + weights.bias_hh


# -- all steps -----------------------------------------------------------------------------------


def _grouped(
    weights: Sequence[mx.array], has_biases: bool, has_projections: bool = False
) -> list[Weights]:
    """Group a flat list of parameters by layer and direction."""
    rest = iter(weights)
    groups = []
    for weight_ih in rest:
        weight_hh = next(rest)
        bias_ih, bias_hh = (next(rest), next(rest)) if has_biases else (None, None)
        weight_hr = next(rest) if has_projections else None
        groups.append(Weights(weight_ih, weight_hh, bias_ih, bias_hh, weight_hr))
    return groups


def _run(
    step_builder: StepBuilder,
    x: mx.array,
    states: States,
    groups: Sequence[Weights],
    dropout: float,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[mx.array, ...]:
    """Run all layers and return the output and the last states."""
    if x.shape[1 if batch_first else 0] == 0:
        raise ValueError(f"[recurrent] expected sequences of at least one step but got {x.shape}.")
    if batch_first:
        x = x.swapaxes(0, 1)
    directions = 2 if bidirectional else 1
    initial = list(zip(*map(_rows, states), strict=True))
    last: list[States] = []
    for first in range(0, len(groups), directions):
        if first and dropout:
            x = _dropped(x, dropout)
        outputs = []
        for i in range(first, first + directions):
            output, state = _scan(step_builder, x, initial[i], groups[i], backwards=i > first)
            outputs.append(output)
            last.append(state)
        x = mx.concatenate(outputs, axis=-1) if bidirectional else outputs[0]
    stacked = (mx.stack(list(each)) for each in zip(*last, strict=True))
    return (x.swapaxes(0, 1) if batch_first else x, *stacked)


def _scan(
    step_builder: StepBuilder, x: mx.array, state: States, weights: Weights, backwards: bool
) -> tuple[mx.array, States]:
    """Run one layer in one direction over ``(L, N, I)``."""
    bias, step = step_builder(weights)
    rows = _rows(project(x, weights.weight_ih, bias))
    outputs = []
    for row in reversed(rows) if backwards else rows:
        state = step(row, state)
        outputs.append(state[0])
    return mx.stack(outputs[::-1] if backwards else outputs), state


def _rows(x: mx.array) -> list[mx.array]:
    """Split an array along its first axis.

    Not by indexing: every row's gradient would be as large as ``x``, and MLX 0.32.4 divides by zero
    in it if another axis is empty.
    """
    return [mx.squeeze(row, 0) for row in mx.split(x, x.shape[0])]


def _dropped(x: mx.array, p: float) -> mx.array:
    if p == 1:
        return x * 0
    return mx.where(mx.random.bernoulli(1 - p, x.shape), x / (1 - p), 0)
