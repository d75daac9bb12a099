"""Activation layers that ``mlx.nn`` lacks or computes differently from PyTorch.

Names and arguments are those of ``mlx.nn`` where it has the layer.
:mod:`mlxport.layers.activation.functions` says what differs. Input has any shape; the output has
the shape and dtype of the input.
"""

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.activation.functions import (
    celu,
    elu,
    hard_shrink,
    hardsigmoid,
    leaky_relu,
    log_softmax,
    rrelu,
    selu,
    softmax,
    softmin,
    softplus,
    softshrink,
    tanhshrink,
    threshold,
)


class ELU(nn.Module):
    """:func:`elu`, whose gradient is finite everywhere; matches ``torch.nn.ELU``."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def _extra_repr(self) -> str:
        return f"alpha={self.alpha}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        return elu(x, self.alpha)


class SELU(nn.Module):
    """:func:`selu` with PyTorch's constants; matches ``torch.nn.SELU``."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        return selu(x)


class CELU(nn.Module):
    """:func:`celu`; matches ``torch.nn.CELU``."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def _extra_repr(self) -> str:
        return f"alpha={self.alpha}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        return celu(x, self.alpha)


class LeakyReLU(nn.Module):
    """:func:`leaky_relu` for every slope; matches ``torch.nn.LeakyReLU``."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def _extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        return leaky_relu(x, self.negative_slope)


class RReLU(nn.Module):
    """:func:`rrelu`; matches ``torch.nn.RReLU``."""

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        super().__init__()
        self.lower, self.upper = lower, upper

    def _extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element, by random slopes in training."""
        return rrelu(x, self.lower, self.upper, self.training)


class Softplus(nn.Module):
    """:func:`softplus` with its arguments; matches ``torch.nn.Softplus``."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def _extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        return softplus(x, self.beta, self.threshold)


class Hardsigmoid(nn.Module):
    """:func:`hardsigmoid`; matches ``torch.nn.Hardsigmoid``."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        return hardsigmoid(x)


class Tanhshrink(nn.Module):
    """:func:`tanhshrink`; matches ``torch.nn.Tanhshrink``."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        return tanhshrink(x)


class Threshold(nn.Module):
    """:func:`threshold`; matches ``torch.nn.Threshold``."""

    def __init__(self, threshold: float, value: float) -> None:
        super().__init__()
        self.threshold, self.value = threshold, value

    def _extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        return threshold(x, self.threshold, self.value)


class HardShrink(nn.Module):
    """:func:`hard_shrink`; matches ``torch.nn.Hardshrink``."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def _extra_repr(self) -> str:
        return f"lambd={self.lambd}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        return hard_shrink(x, self.lambd)


class Softshrink(nn.Module):
    """:func:`softshrink`; matches ``torch.nn.Softshrink``."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def _extra_repr(self) -> str:
        return f"lambd={self.lambd}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        return softshrink(x, self.lambd)


class HardTanh(nn.Module):
    """``mlx.nn.hard_tanh`` with its limits; matches ``torch.nn.Hardtanh``."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__()
        self.min_val, self.max_val = min_val, max_val

    def _extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        y: mx.array = nn.hard_tanh(x, self.min_val, self.max_val)
        return y


class PReLU(nn.PReLU):
    """``mlx.nn.PReLU`` that returns a scalar for a scalar; matches ``torch.nn.PReLU``.

    Input is ``(N, *S, C)`` with one slope per channel, or any shape with one slope.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """Map every element."""
        y: mx.array = super().__call__(x)
        return y.reshape(x.shape)


class _AxisActivation(nn.Module):
    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        if type(axis) is not int:  # a bool is none
            raise TypeError(f"[{type(self).__name__}] 'axis' must be an integer but got {axis!r}.")
        self.axis = axis

    def _extra_repr(self) -> str:
        return f"axis={self.axis}"


class Softmax(_AxisActivation):
    """:func:`softmax` over ``axis``; matches ``torch.nn.Softmax``."""

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise along the axis."""
        return softmax(x, self.axis)


class Softmin(_AxisActivation):
    """:func:`softmin` over ``axis``; matches ``torch.nn.Softmin``."""

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise along the axis."""
        return softmin(x, self.axis)


class LogSoftmax(_AxisActivation):
    """:func:`log_softmax` over ``axis``; matches ``torch.nn.LogSoftmax``."""

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise along the axis."""
        return log_softmax(x, self.axis)
