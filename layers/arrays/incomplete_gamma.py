"""The regularised incomplete gamma functions, which MLX lacks, in float32 precision.

A shape ``a`` below 8, or an ``x`` far from it, is served by the power series below and by the
continued fraction above; the rest by Temme's uniform expansion (DLMF 8.12), whose variable η has
the sign of ``x - a`` and is defined by η²/2 = x/a - 1 - log(x/a).
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias, cast

import mlx.core as mx

from mlxport.layers.arrays.polynomials import polynomial
from mlxport.layers.arrays.special import erfcx, lgamma, lgamma_of_one_more
from mlxport.layers.norm.statistics import upcast

_Pair: TypeAlias = tuple[mx.array, mx.array]

# Terms after which what is left is below a rounding, at the ends of where each is used.
_SERIES = 36
_SMALL_SERIES = 12
_FRACTION = 32
# From this shape on, the expansion serves x/a between the bounds.
_UNIFORM_FROM = 8.0
_UNIFORM = (0.5, 2.0)
# η / (x/a - 1) in t = (x - a) / (x + a), from t = -1/3 to 1/3.
_ETA = (
    1.0,
    -0.666666676678,
    0.11111111689,
    -0.192590798784,
    0.065431063599,
    -0.106497334447,
    0.0461538214755,
    -0.0700300345943,
    0.0344377499656,
    -0.0688700126535,
    0.0375754586172,
)
# Coefficients c_k of the expansion as power series in η, DLMF 8.12.11.
_TEMME = (
    (
        -0.333333333333,
        0.0833333333333,
        -0.0148148148148,
        0.00115740740741,
        0.000352733686067,
        -0.000178755144033,
        3.91926317852e-05,
        -2.18544851068e-06,
        -1.85406221072e-06,
        8.29671134095e-07,
        -1.76659527368e-07,
        6.7078535434e-09,
    ),
    (
        -0.00185185185185,
        -0.00347222222222,
        0.0026455026455,
        -0.000990226337449,
        0.000205761316872,
        -4.01877572016e-07,
        -1.80985503345e-05,
        7.64916091608e-06,
        -1.61209008946e-06,
    ),
    (
        0.0041335978836,
        -0.00268132716049,
        0.000771604938272,
        2.00938786008e-06,
        -0.000107366532264,
        5.29234488291e-05,
    ),
    (0.000649434156379, 0.000229472093621, -0.000469189494395, 0.000267720632063),
    (-0.000861888290917, 0.00078403922172),
)


def gammainc(a: mx.array, x: mx.array) -> mx.array:
    """Return the lower incomplete gamma function over ``Γ(a)``, as ``torch.special.gammainc``.

    Its gradient is that with respect to ``x``; that with respect to ``a``, which PyTorch does not
    have either, is NaN.

    Args:
        a: the shape, floating; NaN where it is negative, or both are zero or infinite.
        x: the bound of the integral, floating, broadcasts with ``a``; NaN where negative.
    """
    return cast(_Pair, _both(a, x))[0]


def gammaincc(a: mx.array, x: mx.array) -> mx.array:
    """Return the upper incomplete gamma function over ``Γ(a)``, as ``torch.special.gammaincc``.

    Args:
        a: as of ``gammainc``.
        x: as of ``gammainc``.
    """
    return cast(_Pair, _both(a, x))[1]


@mx.custom_function
def _both(a: mx.array, x: mx.array) -> _Pair:
    """Return both functions, which add up to one."""
    dtype = (a + x).dtype
    a, x = mx.broadcast_arrays(upcast(a), upcast(x))
    valid = (a > 0) & (x > 0) & (a < mx.inf) & (x < mx.inf)
    shape, bound = mx.where(valid, a, 1), mx.where(valid, x, 1)
    ratio = bound / shape
    uniform = (shape >= _UNIFORM_FROM) & (ratio > _UNIFORM[0]) & (ratio < _UNIFORM[1])
    above = bound >= mx.maximum(shape, 1.1)
    # Of a shape this small, 1 less the lower function would keep few digits.
    small = ~above & (bound < 1.1) & (shape < _least_shape_of_series(bound))

    factor = _factor(shape, bound)
    lower, upper = factor * _series(shape, bound), factor * shape * _fraction(shape, bound)
    upper = mx.where(above, upper, mx.where(small, _small_upper(shape, bound), 1 - lower))
    lower = mx.where(above, 1 - upper, lower)
    near_lower, near_upper = _near(mx.where(uniform, shape, 8), mx.where(uniform, bound, 8))
    lower, upper = mx.where(uniform, near_lower, lower), mx.where(uniform, near_upper, upper)

    # PyTorch's order of the cases, in which a bound of 0 and an infinity outweigh NaN.
    undefined = (a < 0) | (x < 0) | ((a == 0) & ~(x > 0)) | ((a == mx.inf) & (x == mx.inf))
    none, every = (x == 0) | (a == mx.inf), (a == 0) | (x == mx.inf)
    edge = mx.where(undefined, mx.nan, mx.where(none, 0, mx.where(every, 1, mx.nan)))
    lower, upper = mx.where(valid, lower, edge), mx.where(valid, upper, 1 - edge)
    return lower.astype(dtype), upper.astype(dtype)


@_both.vjp
def _(primals: _Pair, cotangents: _Pair, outputs: Any) -> _Pair:
    """Return the gradients: NaN, and the integrand at its bound, negative for the upper one."""
    a, x = primals
    shape, bound = upcast(a), upcast(x)
    integrand = mx.exp((shape - 1) * mx.log(bound) - bound - lgamma(shape))
    gradient = _summed_to((cotangents[0] - cotangents[1]) * integrand, x)
    return mx.full(a.shape, mx.nan, dtype=a.dtype), gradient


def _summed_to(gradient: mx.array, x: mx.array) -> mx.array:
    """Return a gradient summed over the axes along which ``x`` was broadcast."""
    first = gradient.ndim - x.ndim
    lengths = zip(gradient.shape[first:], x.shape, strict=True)
    stretched = [first + i for i, (long, own) in enumerate(lengths) if long != own]
    gradient = gradient.sum(axis=[*range(first), *stretched], keepdims=True)
    return gradient.reshape(x.shape).astype(x.dtype)


def _least_shape_of_series(x: mx.array) -> mx.array:
    """Return from which shape on the lower function is far enough from one."""
    return mx.where(x <= 0.5, -0.4 / mx.log(mx.minimum(x, 0.5)), 1.1 * x)


def _factor(a: mx.array, x: mx.array) -> mx.array:
    """Return ``x^a · exp(-x) / Γ(a + 1)``."""
    small = a * mx.log(x) - x - lgamma_of_one_more(mx.minimum(a, _UNIFORM_FROM))
    large = mx.maximum(a, _UNIFORM_FROM)
    square = 1 / mx.square(large)
    scaled = (1 / 12 - square * (1 / 360 - square / 1260)) / large  # log Γ less Stirling's formula
    exponent = a * mx.log(x / a) - (x - a)
    far = mx.exp(exponent - scaled) / (math.sqrt(2 * math.pi) * mx.sqrt(large))
    return mx.where(a < _UNIFORM_FROM, mx.exp(small), far)


def _series(a: mx.array, x: mx.array) -> mx.array:
    """Return the lower function over the factor: 1 + x/(a + 1) + x²/((a + 1)(a + 2)) + …."""
    term = total = mx.ones_like(x)
    for k in range(1, _SERIES):
        term = term * (x / (a + k))
        total = total + term
    return total


def _small_upper(a: mx.array, x: mx.array) -> mx.array:
    """Return the upper function for ``x`` below 1.1 and ``a`` up to it."""
    power = mx.ones_like(x)
    total = mx.zeros_like(x)
    for k in range(1, _SMALL_SERIES):
        power = power * (-x / k)
        total = total + power / (a + k)
    exponent = a * mx.log(x) - lgamma_of_one_more(a)
    return -mx.expm1(exponent) - a * mx.exp(exponent) * total


def _fraction(a: mx.array, x: mx.array) -> mx.array:
    """Return the upper function over the factor and ``a``: 1/(x + 1 - a - 1·(1 - a)/(x + 3 - …."""
    value = x + (2 * _FRACTION + 1) - a
    for k in range(_FRACTION, 0, -1):
        value = x + (2 * k - 1) - a - k * ((k - a) / value)
    return 1 / value


def _near(a: mx.array, x: mx.array) -> _Pair:
    """Return both functions by the uniform expansion."""
    eta = (x - a) / a * polynomial(_ETA, (x - a) / (x + a))
    total = mx.zeros_like(a)
    for coefficients in _TEMME[::-1]:
        total = total / a + polynomial(coefficients, eta)
    z = mx.abs(eta) * mx.sqrt(a / 2)
    rest = total / (math.sqrt(2 * math.pi) * mx.sqrt(a))
    scaled = 0.5 * erfcx(z) + mx.where(eta < 0, -rest, rest)
    tail = mx.exp(-mx.square(z)) * scaled
    return mx.where(eta < 0, tail, 1 - tail), mx.where(eta < 0, 1 - tail, tail)
