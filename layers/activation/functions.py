"""Activations that ``mlx.nn`` lacks or computes otherwise than PyTorch.

Measured on 0.32.4, ``mlx.nn`` differs in: ``ELU``, ``SELU`` and ``CELU`` lose small negative values
to cancellation (200 times PyTorch's error at 1e-3), and the first two have a NaN gradient above 88;
``LeakyReLU`` is wrong for slopes above 1 and at infinity for slope 0; ``HardShrink`` and
``Softshrink`` turn NaN into 0; ``Softmax`` and ``Softmin`` sum half precision in half precision;
and ``HardTanh``, ``LogSoftmax``, ``Softmax``, ``Softmin`` and ``Softplus`` take no arguments.

Everything here works element by element, whatever the axis order, but for the softmax family.
"""

from functools import partial

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.norm.statistics import upcast

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@partial(mx.compile, shapeless=True)
def elu(x: mx.array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> mx.array:
    """``scale·x`` above zero, ``scale·alpha·(exp(input_scale·x) - 1)`` below; as ``aten::elu``."""
    wide = upcast(x)
    # The branch not taken must stay finite, or its gradient becomes NaN.
    below = mx.where(wide > 0, 0, wide)
    y = mx.where(wide > 0, wide * scale, _expm1(below * input_scale) * (alpha * scale))
    return y.astype(x.dtype)


def _expm1(x: mx.array) -> mx.array:
    # MLX takes expm1(x) + 1 for the derivative, which cancels where that is small.
    return mx.where(x < -0.5, mx.exp(mx.minimum(x, 0)) - 1, mx.expm1(x))


def selu(x: mx.array) -> mx.array:
    """:func:`elu` with the constants of self-normalising networks; as ``aten::selu``."""
    return elu(x, _SELU_ALPHA, _SELU_SCALE)


def celu(x: mx.array, alpha: float = 1.0) -> mx.array:
    """``x`` above zero, ``alpha·(exp(x/alpha) - 1)`` below; matches ``aten::celu``.

    Raises:
        ValueError: ``alpha`` is zero.
    """
    if alpha == 0:
        raise ValueError("[celu] 'alpha' must not be zero.")
    return elu(x, alpha, 1.0, 1.0 / alpha)


@partial(mx.compile, shapeless=True)
def leaky_relu(x: mx.array, negative_slope: float = 0.01) -> mx.array:
    """``x`` above zero, ``negative_slope·x`` below, for every slope; as ``aten::leaky_relu``."""
    return mx.where(x > 0, x, x * negative_slope)


def rrelu(
    x: mx.array, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> mx.array:
    """:func:`leaky_relu` with the mean slope, or random slopes in training; as ``aten::rrelu``.

    Raises:
        ValueError: ``lower`` is above ``upper``.
    """
    if lower > upper:
        raise ValueError(f"[rrelu] 'lower'={lower} must not be above 'upper'={upper}.")
    if not training:
        return leaky_relu(x, (lower + upper) / 2)
    slopes = mx.random.uniform(lower, upper, x.shape).astype(x.dtype)
    return mx.where(x > 0, x, x * slopes)


@partial(mx.compile, shapeless=True)
def softplus(x: mx.array, beta: float = 1.0, threshold: float = 20.0) -> mx.array:
    """``log(1 + exp(beta·x)) / beta``, ``x`` where ``beta·x > threshold``; ``aten::softplus``."""
    scaled = x * beta
    return mx.where(scaled > threshold, x, mx.logaddexp(scaled, 0) / beta)


@partial(mx.compile, shapeless=True)
def hardsigmoid(x: mx.array) -> mx.array:
    """``min(max(x + 3, 0), 6) / 6``; matches ``aten::hardsigmoid``."""
    return mx.minimum(mx.maximum(x + 3, 0), 6) / 6


@partial(mx.compile, shapeless=True)
def tanhshrink(x: mx.array) -> mx.array:
    """``x - tanh(x)``; matches ``torch.nn.functional.tanhshrink``."""
    return x - mx.tanh(x)


@partial(mx.compile, shapeless=True)
def threshold(x: mx.array, threshold: float, value: float) -> mx.array:
    """``x`` above the threshold, ``value`` elsewhere, NaN kept; matches ``aten::threshold``."""
    return mx.where(x <= threshold, value, x)


@partial(mx.compile, shapeless=True)
def hard_shrink(x: mx.array, lambd: float = 0.5) -> mx.array:
    """0 from ``-lambd`` to ``lambd``, ``x`` elsewhere, NaN kept; matches ``aten::hardshrink``."""
    return mx.where((x >= -lambd) & (x <= lambd), 0, x)


def softshrink(x: mx.array, lambd: float = 0.5) -> mx.array:
    """``x`` moved towards 0 by ``lambd``, as far as 0; NaN kept; matches ``aten::softshrink``.

    Raises:
        ValueError: ``lambd`` is negative.
    """
    if lambd < 0:
        raise ValueError(f"[softshrink] 'lambd' must not be negative but got {lambd}.")
    return _softshrink(x, lambd)


@partial(mx.compile, shapeless=True)
def _softshrink(x: mx.array, lambd: float) -> mx.array:
    return mx.where(x > lambd, x - lambd, mx.where(x < -lambd, x + lambd, x * 0))


def softmax(x: mx.array, axis: int) -> mx.array:
    """Softmax over an axis, summed in float32 at least; matches ``aten::softmax.int``.

    A scalar is taken for a vector of one, as in PyTorch.
    """
    if x.ndim == 0:
        return softmax(x[None], axis).squeeze(0)
    return mx.softmax(x, axis=axis, precise=True)


def softmin(x: mx.array, axis: int) -> mx.array:
    """:func:`softmax` of ``-x``; matches ``torch.nn.functional.softmin``."""
    return softmax(-x, axis)


def log_softmax(x: mx.array, axis: int) -> mx.array:
    """Logarithm of softmax over an axis; matches ``aten::log_softmax.int``.

    A scalar is taken for a vector of one, as in PyTorch.
    """
    if x.ndim == 0:
        return log_softmax(x[None], axis).squeeze(0)
    y: mx.array = nn.log_softmax(x, axis=axis)
    return y
