"""Single time steps of recurrent networks: gate equations and LSTM, GRU and RNN cells.

Parameters have PyTorch's names. Both biases are separate parameters, as in PyTorch; the recurrent
layers of MLX have their sum, from which they could not be restored.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

NONLINEARITIES: dict[str, Callable[[mx.array], mx.array]] = {"tanh": mx.tanh, "relu": nn.relu}


def lstm_gates(gates: mx.array, c: mx.array) -> tuple[mx.array, mx.array]:
    """Return the next ``h`` and ``c``, ``(*, H)``, of the summed gates i, f, g, o, ``(*, 4H)``."""
    i, f, g, o = mx.split(gates, 4, axis=-1)
    c = mx.sigmoid(f) * c + mx.sigmoid(i) * mx.tanh(g)
    return mx.sigmoid(o) * mx.tanh(c), c


def gru_gates(from_input: mx.array, from_state: mx.array, h: mx.array) -> mx.array:
    """Return the next ``h``, ``(*, H)``.

    Args:
        from_input: the projected input, gates in the order r, z, n, ``(*, 3H)``.
        from_state: the projected state, likewise.
        h: the state.
    """
    gates = zip(mx.split(from_input, 3, axis=-1), mx.split(from_state, 3, axis=-1), strict=True)
    (r_x, r_h), (z_x, z_h), (n_x, n_h) = gates
    r, z = mx.sigmoid(r_x + r_h), mx.sigmoid(z_x + z_h)
    n = mx.tanh(n_x + r * n_h)
    return n + z * (h - n)


def project(x: mx.array, weight: mx.array, bias: mx.array | None) -> mx.array:
    """Return ``x @ weight.T + bias``: ``(*, I)`` to ``(*, O)``."""
    return x @ weight.T if bias is None else mx.addmm(bias, x, weight.T)


def lstm_cell(
    x: mx.array,
    hx: tuple[mx.array, mx.array],
    weight_ih: mx.array,
    weight_hh: mx.array,
    bias_ih: mx.array | None = None,
    bias_hh: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Return the next ``(h, c)``; matches ``aten::lstm_cell``.

    Args:
        x: ``(N, I)`` or ``(I,)``.
        hx: ``h`` and ``c``, ``(N, H)`` or ``(H,)``.
        weight_ih: ``(4H, I)``, gates in the order i, f, g, o.
        weight_hh: ``(4H, H)``.
        bias_ih: ``(4H,)``.
        bias_hh: ``(4H,)``.
    """
    h, c = hx
    return lstm_gates(project(x, weight_ih, bias_ih) + project(h, weight_hh, bias_hh), c)


def gru_cell(
    x: mx.array,
    hx: mx.array,
    weight_ih: mx.array,
    weight_hh: mx.array,
    bias_ih: mx.array | None = None,
    bias_hh: mx.array | None = None,
) -> mx.array:
    """Return the next ``h``; matches ``aten::gru_cell``.

    Args:
        x: ``(N, I)`` or ``(I,)``.
        hx: ``(N, H)`` or ``(H,)``.
        weight_ih: ``(3H, I)``, gates in the order r, z, n.
        weight_hh: ``(3H, H)``.
        bias_ih: ``(3H,)``.
        bias_hh: ``(3H,)``.
    """
    return gru_gates(project(x, weight_ih, bias_ih), project(hx, weight_hh, bias_hh), hx)


def rnn_cell(
    x: mx.array,
    hx: mx.array,
    weight_ih: mx.array,
    weight_hh: mx.array,
    bias_ih: mx.array | None = None,
    bias_hh: mx.array | None = None,
    nonlinearity: str = "tanh",
) -> mx.array:
    """Return the next ``h``; matches ``aten::rnn_tanh_cell`` and ``aten::rnn_relu_cell``.

    Args:
        x: ``(N, I)`` or ``(I,)``.
        hx: ``(N, H)`` or ``(H,)``.
        weight_ih: ``(H, I)``.
        weight_hh: ``(H, H)``.
        bias_ih: ``(H,)``.
        bias_hh: ``(H,)``.
        nonlinearity: ``"tanh"`` or ``"relu"``.
    """
    summed = project(x, weight_ih, bias_ih) + project(hx, weight_hh, bias_hh)
    return NONLINEARITIES[nonlinearity](summed)


def check_nonlinearity(layer: str, nonlinearity: str) -> str:
    """Return the name of a nonlinearity after checking it.

    Raises:
        ValueError: it is neither ``"tanh"`` nor ``"relu"``.
    """
    if nonlinearity not in NONLINEARITIES:
        known = " or ".join(map(repr, NONLINEARITIES))
        raise ValueError(f"[{layer}] 'nonlinearity' must be {known} but got {nonlinearity!r}.")
    return nonlinearity


class _Cell(nn.Module):
    gates: ClassVar[int]

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True):
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        bound = 1 / math.sqrt(hidden_size) if hidden_size else 0.0
        rows = self.gates * hidden_size
        self.weight_ih = mx.random.uniform(-bound, bound, (rows, input_size))
        self.weight_hh = mx.random.uniform(-bound, bound, (rows, hidden_size))
        if bias:
            self.bias_ih = mx.random.uniform(-bound, bound, (rows,))
            self.bias_hh = mx.random.uniform(-bound, bound, (rows,))

    def _extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, bias={'bias_ih' in self}"

    def _weights(self) -> tuple[mx.array, mx.array, mx.array | None, mx.array | None]:
        return self.weight_ih, self.weight_hh, self.get("bias_ih"), self.get("bias_hh")

    def _checked(self, x: mx.array, *states: mx.array) -> None:
        name = type(self).__name__
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"[{name}] expected input (N, {self.input_size}) or ({self.input_size},) but got "
                f"{x.shape}."
            )
        shape = (*x.shape[:-1], self.hidden_size)
        if any(state.shape != shape for state in states):
            got = " and ".join(str(state.shape) for state in states)
            raise ValueError(f"[{name}] expected states of shape {shape} but got {got}.")

    def _zeros(self, x: mx.array) -> mx.array:
        return mx.zeros((*x.shape[:-1], self.hidden_size), dtype=x.dtype)


class RNNCell(_Cell):
    """Takes one step of an Elman network, as ``torch.nn.RNNCell`` does.

    Shape:
        - Input: ``(N, input_size)`` or ``(input_size,)``; state ``(N, hidden_size)`` or
          ``(hidden_size,)``, zeros if not given
        - Output: as the state

    Args:
        input_size (int): The number of features of the input.
        hidden_size (int): The number of features of the state.
        bias (bool, optional): Whether there are biases. Default: ``True``.
        nonlinearity (str, optional): ``"tanh"`` or ``"relu"``. Default: ``"tanh"``.

    Raises:
        ValueError: An unknown nonlinearity; from the call: shapes that do not fit.
    """

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"
    ):
        super().__init__(input_size, hidden_size, bias)
        self.nonlinearity = check_nonlinearity("RNNCell", nonlinearity)

    def _extra_repr(self) -> str:
        return f"{super()._extra_repr()}, nonlinearity={self.nonlinearity}"

    def __call__(self, x: mx.array, hx: mx.array | None = None) -> mx.array:
        """Return the next state."""
        h = self._zeros(x) if hx is None else hx
        self._checked(x, h)
        return rnn_cell(x, h, *self._weights(), self.nonlinearity)


class LSTMCell(_Cell):
    """Takes one step of a long short-term memory, as ``torch.nn.LSTMCell`` does.

    Shape:
        - Input: ``(N, input_size)`` or ``(input_size,)``; states ``h`` and ``c``
          ``(N, hidden_size)`` or ``(hidden_size,)``, zeros if not given
        - Output: ``(h, c)``, as the states

    Args:
        input_size (int): The number of features of the input.
        hidden_size (int): The number of features of the states.
        bias (bool, optional): Whether there are biases. Default: ``True``.

    Raises:
        ValueError: From the call: shapes that do not fit.
    """

    gates = 4

    def __call__(
        self, x: mx.array, hx: tuple[mx.array, mx.array] | None = None
    ) -> tuple[mx.array, mx.array]:
        """Return the next states."""
        h, c = (self._zeros(x), self._zeros(x)) if hx is None else hx
        self._checked(x, h, c)
        return lstm_cell(x, (h, c), *self._weights())


class GRUCell(_Cell):
    """Takes one step of a gated recurrent unit, as ``torch.nn.GRUCell`` does.

    Shape:
        - Input: ``(N, input_size)`` or ``(input_size,)``; state ``(N, hidden_size)`` or
          ``(hidden_size,)``, zeros if not given
        - Output: as the state

    Args:
        input_size (int): The number of features of the input.
        hidden_size (int): The number of features of the state.
        bias (bool, optional): Whether there are biases. Default: ``True``.

    Raises:
        ValueError: From the call: shapes that do not fit.
    """

    gates = 3

    def __call__(self, x: mx.array, hx: mx.array | None = None) -> mx.array:
        """Return the next state."""
        h = self._zeros(x) if hx is None else hx
        self._checked(x, h)
        return gru_cell(x, h, *self._weights())
