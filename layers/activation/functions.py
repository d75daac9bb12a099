"""Activation functions that ``mlx.nn`` lacks or computes differently from PyTorch.

What differs in MLX 0.32.4: ``ELU``, ``SELU`` and ``CELU`` lose small negative values to
cancellation (200 times PyTorch's error at 1e-3), and the first two have a NaN gradient above 88;
``LeakyReLU`` is wrong for slopes above 1 and at infinity for slope 0; ``HardShrink`` and
``Softshrink`` turn NaN into 0; ``Softmax`` and ``Softmin`` sum half precision in half precision;
``HardTanh``, ``LogSoftmax``, ``Softmax``, ``Softmin`` and ``Softplus`` take no arguments.

All functions except the softmax family are elementwise, so they take any axis order.
"""

from functools import partial

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.norm.statistics import upcast

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@partial(mx.compile, shapeless=True)
def elu(x: mx.array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> mx.array:
    """Return ``scale·x`` above 0, ``scale·alpha·(exp(input_scale·x) - 1)`` below: ``aten::elu``."""
    wide = upcast(x)
    # The branch that is not selected has to be finite, or its gradient becomes NaN.
    below = mx.where(wide > 0, 0, wide)
    y = mx.where(wide > 0, wide * scale, _expm1(below * input_scale) * (alpha * scale))
    return y.astype(x.dtype)


def _expm1(x: mx.array) -> mx.array:
    # MLX's derivative is expm1(x) + 1, which cancels where it is small.
    return mx.where(x < -0.5, mx.exp(mx.minimum(x, 0)) - 1, mx.expm1(x))


def selu(x: mx.array) -> mx.array:
    """Return :func:`elu` with the constants of self-normalising networks; as ``aten::selu``."""
    return elu(x, _SELU_ALPHA, _SELU_SCALE)


def celu(x: mx.array, alpha: float = 1.0) -> mx.array:
    """Return ``x`` above 0, ``alpha·(exp(x/alpha) - 1)`` below; matches ``aten::celu``.

    Raises:
        ValueError: ``alpha`` is zero.
    """
    if alpha == 0:
        raise ValueError("[celu] 'alpha' must not be zero.")
    return elu(x, alpha, 1.0, 1.0 / alpha)


@partial(mx.compile, shapeless=True)
def leaky_relu(x: mx.array, negative_slope: float = 0.01) -> mx.array:
    """Return ``x`` above 0, ``negative_slope·x`` below; matches ``aten::leaky_relu``."""
    return mx.where(x > 0, x, x * negative_slope)


def rrelu(
    x: mx.array, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> mx.array:
    """Return :func:`leaky_relu` of the mean slope, in training of random ones; as ``aten::rrelu``.

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
    """Return ``log(1 + exp(beta·x)) / beta``, ``x`` where ``beta·x > threshold``.

    Matches ``aten::softplus``.
    """
    scaled = x * beta
    return mx.where(scaled > threshold, x, mx.logaddexp(scaled, 0) / beta)


@partial(mx.compile, shapeless=True)
def hardsigmoid(x: mx.array) -> mx.array:
    """Return ``min(max(x + 3, 0), 6) / 6``; matches ``aten::hardsigmoid``."""
    return mx.minimum(mx.maximum(x + 3, 0), 6) / 6


@partial(mx.compile, shapeless=True)
def tanhshrink(x: mx.array) -> mx.array:
    """Return ``x - tanh(x)``; matches ``torch.nn.functional.tanhshrink``."""
    return x - mx.tanh(x)


@partial(mx.compile, shapeless=True)
def threshold(x: mx.array, threshold: float, value: float) -> mx.array:
    """Return ``x`` above the threshold and where it is NaN, else ``value``: ``aten::threshold``."""
    return mx.where(x <= threshold, value, x)


@partial(mx.compile, shapeless=True)
def hard_shrink(x: mx.array, lambd: float = 0.5) -> mx.array:
    """Return 0 from ``-lambd`` to ``lambd``, ``x`` elsewhere; matches ``aten::hardshrink``."""
    return mx.where((x >= -lambd) & (x <= lambd), 0, x)


def softshrink(x: mx.array, lambd: float = 0.5) -> mx.array:
    """Return ``x`` moved towards 0 by ``lambd``, but not past 0; matches ``aten::softshrink``.

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
    """Return the softmax over an axis, summed in float32 or more; matches ``aten::softmax.int``.

    A scalar counts as a vector of length 1, as in PyTorch.
    """
    if x.ndim == 0:
        return softmax(x[None], axis).squeeze(0)
    return mx.softmax(x, axis=axis, precise=True)


def softmin(x: mx.array, axis: int) -> mx.array:
    """Return :func:`softmax` of ``-x``; matches ``torch.nn.functional.softmin``."""
    return softmax(-x, axis)


def log_softmax(x: mx.array, axis: int) -> mx.array:
    """Return the logarithm of the softmax over an axis; matches ``aten::log_softmax.int``.

    A scalar counts as a vector of length 1, as in PyTorch.
    """
    if x.ndim == 0:
        return log_softmax(x[None], axis).squeeze(0)
    y: mx.array = nn.log_softmax(x, axis=axis)
    return y
