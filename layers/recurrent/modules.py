"""LSTM, GRU and Elman networks as layers, with PyTorch's parameters under its names.

They call :mod:`mlxport.layers.recurrent.functions`, which says what the layers of ``mlx.nn`` lack.
"""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.recurrent.cells import check_nonlinearity
from mlxport.layers.recurrent.functions import States, gru, lstm, rnn

# PyTorch checks these, too: 1 or "False" would silently count as true.
_TYPES = {int: ("input_size", "hidden_size"), bool: ("bias", "batch_first")}


class _Recurrent(nn.Module):
    """Base of the three networks: parameters, checks and the batch axis."""

    gates: ClassVar[int]
    states: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
    ):
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._check_arguments()
        bound = 1 / math.sqrt(hidden_size)
        for name, shape in self._shapes():
            self[name] = mx.random.uniform(-bound, bound, shape)

    def _check_arguments(self) -> None:
        self._check_types()
        sizes = {name: getattr(self, name) for name in ("input_size", "hidden_size", "num_layers")}
        problems = [f"{name!r} must be positive but got {n}" for name, n in sizes.items() if n <= 0]
        if not 0 <= self.dropout <= 1:
            problems.append(f"'dropout' must be from 0 to 1 but got {self.dropout}")
        if not 0 <= self.proj_size < max(self.hidden_size, 1):
            problems.append(f"'proj_size' must be below hidden_size but got {self.proj_size}")
        if problems:
            raise ValueError(f"[{type(self).__name__}] {'; '.join(problems)}.")

    def _check_types(self) -> None:
        problems = [
            f"{name!r} must be of type {kind.__name__} but got {getattr(self, name)!r}"
            for kind, names in _TYPES.items()
            for name in names
            if not isinstance(getattr(self, name), kind)
        ]
        if problems:
            raise TypeError(f"[{type(self).__name__}] {'; '.join(problems)}.")

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _output_size(self) -> int:
        return self.proj_size or self.hidden_size

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield names and shapes of all parameters, in the order ATen takes them."""
        rows = self.gates * self.hidden_size
        for layer in range(self.num_layers):
            columns = self._directions * self._output_size if layer else self.input_size
            for end in ("", "_reverse")[: self._directions]:
                yield f"weight_ih_l{layer}{end}", (rows, columns)
                yield f"weight_hh_l{layer}{end}", (rows, self._output_size)
                if self.bias:
                    yield f"bias_ih_l{layer}{end}", (rows,)
                    yield f"bias_hh_l{layer}{end}", (rows,)
                if self.proj_size:
                    yield f"weight_hr_l{layer}{end}", (self.proj_size, self.hidden_size)

    def _options(self) -> dict[str, Any]:
        return {
            "weights": [self[name] for name, _ in self._shapes()],
            "has_biases": self.bias,
            "dropout": self.dropout if self.training else 0.0,
            "bidirectional": self.bidirectional,
            "batch_first": self.batch_first,
        }

    def _extra_repr(self) -> str:
        changed = [
            f", {name}={getattr(self, name)}"
            for name, default in (
                ("proj_size", 0),
                ("num_layers", 1),
                ("bias", True),
                ("batch_first", False),
                ("dropout", 0.0),
                ("bidirectional", False),
            )
            if getattr(self, name) != default
        ]
        return f"{self.input_size}, {self.hidden_size}{''.join(changed)}"

    # -- running ---------------------------------------------------------------------------------

    def _compute(self, x: mx.array, states: States) -> States:
        """Return the output and the last states of a batch."""
        raise NotImplementedError

    def _run(self, x: mx.array, given: States | None) -> States:
        """Return the output and the last states, of a batch or of a single sequence."""
        self._check_input(x)
        states = self._initial_states(x, given)
        if x.ndim == 3:
            return self._compute(x, states)
        axis = 0 if self.batch_first else 1
        batch = mx.expand_dims(x, axis)
        output, *last = self._compute(batch, tuple(mx.expand_dims(s, 1) for s in states))
        return mx.squeeze(output, axis), *(mx.squeeze(s, 1) for s in last)

    def _check_input(self, x: mx.array) -> None:
        name = type(self).__name__
        if not isinstance(x, mx.array):
            raise TypeError(
                f"[{name}] expected an array but got {type(x).__name__}. Packed sequences have no "
                "counterpart: run sequences of one length together, or each alone."
            )
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            lead = "N, L" if self.batch_first else "L, N"
            raise ValueError(
                f"[{name}] expected input ({lead}, {self.input_size}) or (L, {self.input_size}) "
                f"but got {x.shape}."
            )
        if x.dtype != self.weight_ih_l0.dtype:
            raise ValueError(
                f"[{name}] expected input of the weights' dtype {self.weight_ih_l0.dtype} but got "
                f"{x.dtype}. Convert one of the two."
            )

    def _initial_states(self, x: mx.array, given: States | None) -> States:
        """Return the given initial states, or zeros."""
        batch = (x.shape[0 if self.batch_first else 1],) if x.ndim == 3 else ()
        lead = (self.num_layers * self._directions, *batch)
        sizes = (self._output_size, self.hidden_size)[: self.states]  # c is never projected
        shapes = [(*lead, size) for size in sizes]
        if given is None:
            return tuple(mx.zeros(shape, dtype=x.dtype) for shape in shapes)
        if [state.shape for state in given] != shapes:
            raise ValueError(
                f"[{type(self).__name__}] expected states {' and '.join(map(str, shapes))} for "
                f"input {x.shape} but got {' and '.join(str(s.shape) for s in given)}."
            )
        return tuple(given)


class LSTM(_Recurrent):
    """Runs a long short-term memory over sequences, as ``torch.nn.LSTM`` does.

    Shape, with ``D`` directions and ``P = proj_size or hidden_size``:
        - Input: ``(L, N, input_size)``, ``(N, L, input_size)`` with ``batch_first``, or
          ``(L, input_size)``; L at least 1
        - States, zeros if not given: ``h`` ``(num_layers * D, N, P)`` and ``c``
          ``(num_layers * D, N, hidden_size)``, without N where the input has none
        - Output: ``(output, (h, c))``, the output as the input with ``D * P`` features, the
          states as the first ones

    Parameters are PyTorch's, one to one: ``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0``,
    ``bias_hh_l0``, ``weight_hr_l0``, then ``…_l0_reverse``, ``…_l1`` and so on.

    Args:
        input_size (int): The number of features of the input.
        hidden_size (int): The number of features of the states.
        num_layers (int, optional): The number of stacked layers. Default: ``1``.
        bias (bool, optional): Whether there are biases. Default: ``True``.
        batch_first (bool, optional): Whether input and output are batch first. Default: ``False``.
        dropout (float, optional): Probability to drop an element between two layers in training.
            Default: ``0.0``.
        bidirectional (bool, optional): Whether to run backwards as well. Default: ``False``.
        proj_size (int, optional): The size ``h`` is projected to, 0 for none. Default: ``0``.

    Raises:
        ValueError: Arguments out of range; from the call: shapes that do not fit or an empty
            sequence.
        TypeError: Arguments of another type; from the call: a packed sequence.
    """

    gates = 4
    states = 2

    def __call__(
        self, x: mx.array, hx: tuple[mx.array, mx.array] | None = None
    ) -> tuple[mx.array, tuple[mx.array, mx.array]]:
        """Return the output and the last states."""
        output, h, c = self._run(x, hx)
        return output, (h, c)

    def _compute(self, x: mx.array, states: States) -> States:
        return lstm(x, states, **self._options())


class _OneState(_Recurrent):
    def __call__(self, x: mx.array, hx: mx.array | None = None) -> tuple[mx.array, mx.array]:
        """Return the output and the last state."""
        output, h = self._run(x, None if hx is None else (hx,))
        return output, h


class GRU(_OneState):
    """Runs gated recurrent units over sequences, as ``torch.nn.GRU`` does.

    Shape, with ``D`` directions:
        - Input: ``(L, N, input_size)``, ``(N, L, input_size)`` with ``batch_first``, or
          ``(L, input_size)``; L at least 1
        - State, zeros if not given: ``(num_layers * D, N, hidden_size)``, without N where the
          input has none
        - Output: ``(output, h)``, the output as the input with ``D * hidden_size`` features, the
          state as the first one

    Parameters are PyTorch's, one to one, as those of :class:`LSTM`.

    Args:
        input_size (int): The number of features of the input.
        hidden_size (int): The number of features of the state.
        num_layers (int, optional): The number of stacked layers. Default: ``1``.
        bias (bool, optional): Whether there are biases. Default: ``True``.
        batch_first (bool, optional): Whether input and output are batch first. Default: ``False``.
        dropout (float, optional): Probability to drop an element between two layers in training.
            Default: ``0.0``.
        bidirectional (bool, optional): Whether to run backwards as well. Default: ``False``.

    Raises:
        ValueError: Arguments out of range; from the call: shapes that do not fit or an empty
            sequence.
        TypeError: Arguments of another type; from the call: a packed sequence.
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ):
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )

    def _compute(self, x: mx.array, states: States) -> States:
        return gru(x, states[0], **self._options())


class RNN(_OneState):
    """Runs an Elman network over sequences, as ``torch.nn.RNN`` does.

    Shape and parameters are those of :class:`GRU`.

    Args:
        input_size (int): The number of features of the input.
        hidden_size (int): The number of features of the state.
        num_layers (int, optional): The number of stacked layers. Default: ``1``.
        nonlinearity (str, optional): ``"tanh"`` or ``"relu"``. Default: ``"tanh"``.
        bias (bool, optional): Whether there are biases. Default: ``True``.
        batch_first (bool, optional): Whether input and output are batch first. Default: ``False``.
        dropout (float, optional): Probability to drop an element between two layers in training.
            Default: ``0.0``.
        bidirectional (bool, optional): Whether to run backwards as well. Default: ``False``.

    Raises:
        ValueError: Arguments out of range; from the call: shapes that do not fit or an empty
            sequence.
        TypeError: Arguments of another type; from the call: a packed sequence.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ):
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        self.nonlinearity = check_nonlinearity("RNN", nonlinearity)

    def _extra_repr(self) -> str:
        return f"{super()._extra_repr()}, nonlinearity={self.nonlinearity}"

    def _compute(self, x: mx.array, states: States) -> States:
        return rnn(x, states[0], nonlinearity=self.nonlinearity, **self._options())
