"""Special functions that MLX lacks (erfc, gamma functions, zeta …), in float32 precision.

Half precision is computed in float32. The polynomials were fitted at the Chebyshev points of their
intervals, with 40 digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeAlias, cast

import mlx.core as mx

from mlxport.layers.arrays.polynomials import polynomial
from mlxport.layers.norm.statistics import upcast

_Unary: TypeAlias = Callable[[mx.array], mx.array]

# (1 + 2x)·exp(x²)·erfc(x) in t = (x - 2) / (x + 2), from x = 0 to infinity.
_ERFCX = (
    1.27697838155,
    -0.0927637598135,
    -0.166030391287,
    0.164049395351,
    -0.0542201860511,
    -0.00801863569218,
    0.00872429453797,
    0.00121666549602,
    -0.00146351167016,
    -0.000357177892469,
    0.000221105452488,
    6.31001854618e-5,
    -2.01089311862e-5,
)
# log Γ(x) / ((x - 1)(x - 2)) in x - 1.5, from x = 0.5 to 2.5.
_LGAMMA = (
    0.483128950541,
    -0.145959841243,
    0.0629113660967,
    -0.0313110892974,
    0.0167987631805,
    -0.00938995020619,
    0.00542363740803,
    -0.00342838110871,
    0.00206127690453,
    -0.000483299495985,
    0.000275927957197,
    -0.00161450089795,
    0.00102347000929,
    0.000916882647536,
    -0.000588220900066,
    -0.000517863233023,
    0.00033003423013,
)
# Bernoulli numbers over their indices: the asymptotic series of the digamma function in 1/x².
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760)
# Bernoulli numbers: the series of the trigamma function.
_TRIGAMMA = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730)
# The inverse of the normal distribution function over its argument less 1/2, in the square of that.
_NDTRI_NEAR = (
    2.71970098334,
    0.254521347882,
    0.0516978218954,
    0.0130901199684,
    0.00368588809749,
    0.00110251421964,
    0.00033134207626,
    0.000105889556323,
    4.82641469568e-5,
    1.61612754665e-5,
)
# r less the inverse's magnitude, r being √(-2·log p), in 1/r from 1/15 to 1/1.9.
_NDTRI_FAR = (
    0.665020925211,
    0.31227628762,
    -0.0695083850329,
    0.0220439430544,
    -0.0088178741872,
    0.00414889587851,
    -0.0021091645352,
    0.00116792502478,
    -0.000979479769104,
    0.000620889405121,
    0.000474927859865,
    -0.000360783980746,
    -0.00121987383117,
    0.000864479167508,
    0.00085853948561,
    -0.000614048751349,
    -0.000345622569427,
    0.000245218337591,
)
# Bernoulli numbers of even indices over the factorials of these.
_ZETA = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160)
_TERMS = 24  # of zeta, before its asymptotic series


def _with_derivative(derivative: _Unary) -> Callable[[_Unary], _Unary]:
    """Decorate a function of several cases, of which one that is not taken may be infinite.

    MLX's own gradient would be NaN there, as zero times infinity.
    """

    def decorate(function: _Unary) -> _Unary:
        differentiated = mx.custom_function(function)

        @differentiated.vjp
        def _(x: mx.array, cotangent: mx.array, _output: Any) -> mx.array:
            return (upcast(cotangent) * derivative(upcast(x))).astype(x.dtype)

        @wraps(function)
        def called(x: mx.array) -> mx.array:
            return cast(mx.array, differentiated(x))

        return called

    return decorate


def erfc(x: mx.array) -> mx.array:
    """Return ``1 - erf(x)`` without cancellation, as ``torch.erfc``.

    Args:
        x: any shape, floating.
    """
    wide = upcast(x)
    magnitude = _magnitude(wide)
    tail = _exp_of_minus_square(magnitude) * _erfcx(magnitude)
    return mx.where(wide < 0, 2 - tail, tail).astype(x.dtype)


def erfcx(x: mx.array) -> mx.array:
    """Return ``exp(x²)·erfc(x)``, as ``torch.special.erfcx``."""
    wide = upcast(x)
    tail = _erfcx(_magnitude(wide))
    # Infinite well before 30, and of no use above zero, where an infinity would give NaN gradients.
    below = mx.clip(-wide, 0.0, 30.0)
    high = mx.round(below * 64) / 64
    square = mx.exp(high * high) * mx.exp((below - high) * (below + high))
    return mx.where(wide < 0, 2 * square - tail, tail).astype(x.dtype)


@_with_derivative(lambda x: digamma(x))
def lgamma(x: mx.array) -> mx.array:
    """Return the logarithm of the magnitude of the gamma function, as ``torch.lgamma``.

    Args:
        x: any shape, floating. Infinity at 0 and the negative integers.
    """
    wide = upcast(x)
    magnitude = mx.abs(wide)
    # Reduced to 0.5 … 2.5 by Γ(x + 1) = x·Γ(x): up by one factor, or down by several above 1.5.
    small = magnitude < 0.5
    z = mx.where(small, magnitude + 1, magnitude)
    factors = mx.where(small, 1 / magnitude, mx.ones_like(magnitude))
    for _ in range(6):
        above = (z > 2.5) & (z < 9)
        z = mx.where(above, z - 1, z)
        factors = mx.where(above, factors * z, factors)
    near = (z - 1) * (z - 2) * polynomial(_LGAMMA, z - 1.5) + mx.log(factors)
    far = (magnitude - 0.5) * mx.log(magnitude) - magnitude + 0.5 * math.log(2 * math.pi)
    far = far + 1 / (12 * magnitude) - 1 / (360 * magnitude * magnitude * magnitude)
    value = mx.where(magnitude > 8, mx.where(mx.isinf(magnitude), mx.inf, far), near)
    # Γ(-x)·Γ(x)·x·sin(πx) = -π
    mirrored = mx.log(math.pi / magnitude) - mx.log(_sin_of_pi(magnitude)) - value
    whole = wide == mx.floor(wide)
    below = mx.where(whole, mx.inf, mirrored)
    return mx.where(wide <= 0, below, value).astype(x.dtype)


def lgamma_of_one_more(x: mx.array) -> mx.array:
    """Return ``lgamma(1 + x)`` for ``x`` of at least 0, exact to its last digits near 0."""
    near = x * (x - 1) * polynomial(_LGAMMA, mx.minimum(x, 1.5) - 0.5)
    return mx.where(x <= 1.5, near, lgamma(x + 1))


@_with_derivative(lambda x: trigamma(x))
def digamma(x: mx.array) -> mx.array:
    """Return the derivative of the logarithm of the gamma function, as ``torch.digamma``.

    Args:
        x: any shape, floating. NaN at the negative integers, an infinity at 0.
    """
    wide = upcast(x)
    mirrored = wide < 0
    z = mx.where(mirrored, 1 - wide, wide)
    sums = mx.zeros_like(z)
    for _ in range(7):
        below = z < 7
        sums = mx.where(below, sums - 1 / z, sums)
        z = mx.where(below, z + 1, z)
    series = polynomial(_DIGAMMA, 1 / mx.square(z)) / mx.square(z)
    value = mx.log(z) - 0.5 / z - series + sums
    turn = wide - mx.round(wide)
    reflected = value - math.pi * mx.cos(math.pi * turn) / mx.sin(math.pi * turn)
    value = mx.where(mirrored, reflected, value)
    value = mx.where(mirrored & (wide == mx.floor(wide)), mx.nan, value)
    value = mx.where(wide == mx.inf, mx.inf, value)
    return mx.where(wide == 0, -1 / wide, value).astype(x.dtype)


@_with_derivative(lambda x: polygamma(x, 2))
def trigamma(x: mx.array) -> mx.array:
    """Return the derivative of the digamma function, as ``torch.polygamma(1, x)``."""
    wide = upcast(x)
    mirrored = wide < 0.5
    z = mx.where(mirrored, 1 - wide, wide)
    sums = mx.zeros_like(z)
    for _ in range(7):
        below = z < 7
        sums = mx.where(below, sums + 1 / mx.square(z), sums)
        z = mx.where(below, z + 1, z)
    square = mx.square(z)
    value = sums + 1 / z + 0.5 / square + polynomial(_TRIGAMMA, 1 / square) / (square * z)
    sine = math.pi / _sin_of_pi(wide)
    return mx.where(mirrored, mx.square(sine) - value, value).astype(x.dtype)


@_with_derivative(lambda p: math.sqrt(2 * math.pi) * mx.exp(mx.square(ndtri(p)) / 2))
def ndtri(p: mx.array) -> mx.array:
    """Return where the normal distribution function is ``p``, as ``torch.special.ndtri``.

    Args:
        p: any shape, floating; infinities at 0 and 1, NaN outside.
    """
    wide = upcast(p)
    middle = wide - 0.5
    near = middle * polynomial(_NDTRI_NEAR, 2 / 0.37**2 * mx.square(middle) - 1)
    least = mx.minimum(wide, 1 - wide)
    radius = mx.sqrt(-2 * mx.log(mx.clip(least, 1e-45, 0.15)))
    span = 1 / 1.9 - 1 / 15
    far = radius - polynomial(_NDTRI_FAR, (2 / radius - 1 / 1.9 - 1 / 15) / span)
    value = mx.where(mx.abs(middle) < 0.36, near, mx.where(middle < 0, -far, far))
    value = mx.where(wide == 0, -mx.inf, mx.where(wide == 1, mx.inf, value))
    return mx.where((wide >= 0) & (wide <= 1), value, mx.nan).astype(p.dtype)


def zeta(x: mx.array, q: mx.array) -> mx.array:
    """Return the Hurwitz zeta function, as ``torch.special.zeta``.

    By the formula of Euler and Maclaurin after 24 terms.

    Args:
        x: the exponent, floating; infinity at 1 and NaN below.
        q: the first of the numbers whose powers are added, broadcasts with ``x``; infinity at the
            negative integers and 0, NaN below -16.
    """
    exponent, first = upcast(x), upcast(q)
    sums = mx.zeros_like(exponent + first)
    for k in range(_TERMS):
        sums = sums + _power(first + k, exponent)
    last = first + _TERMS
    power = mx.power(mx.maximum(last, 1), -exponent)
    value = sums + power * (last / (exponent - 1) + 0.5)
    factor = power * exponent / last
    for k, coefficient in enumerate(_ZETA):
        value = value + coefficient * factor
        factor = factor * (exponent + 2 * k + 1) * (exponent + 2 * k + 2) / mx.square(last)
    whole = first == mx.floor(first)
    undefined = (exponent != mx.floor(exponent)) | (first < -16)
    below = mx.where(whole, mx.inf, mx.where(undefined, mx.nan, value))
    value = mx.where(first <= 0, below, value)
    value = mx.where(exponent == 1, mx.inf, mx.where(exponent < 1, mx.nan, value))
    return mx.where(mx.isnan(exponent + first), mx.nan, value).astype((x + q).dtype)


def polygamma(x: mx.array, n: int) -> mx.array:
    """Return the ``n``-th derivative of the digamma function, as ``torch.polygamma(n, x)``.

    Args:
        x: any shape, floating; NaN below -16.
        n: the order, at least 2.
    """
    order = mx.array(n + 1.0, dtype=mx.float32)
    factor = math.factorial(n) * (1.0 if n % 2 else -1.0)
    return (factor * zeta(order, upcast(x))).astype(x.dtype)


def _power(base: mx.array, exponent: mx.array) -> mx.array:
    """Return ``base`` to the power ``-exponent``, of a negative base for whole exponents."""
    power = mx.power(mx.abs(base), -exponent)
    odd = exponent / 2 != mx.floor(exponent / 2)
    return mx.where((base < 0) & odd, -power, power)


def _magnitude(x: mx.array) -> mx.array:
    """Return ``|x|`` with a gradient of 1 at 0, where that of ``mx.abs`` is 0."""
    return mx.where(x < 0, -x, x)


def _erfcx(magnitude: mx.array) -> mx.array:
    magnitude = mx.minimum(magnitude, 1e37)  # of infinities the quotient would be NaN
    t = (magnitude - 2) / (magnitude + 2)
    return polynomial(_ERFCX, t) / (1 + 2 * magnitude)


def _exp_of_minus_square(magnitude: mx.array) -> mx.array:
    """Return ``exp(-magnitude²)``, the square in two parts to keep its rounding error small."""
    magnitude = mx.minimum(magnitude, 30.0)
    high = mx.round(magnitude * 64) / 64
    return mx.exp(-high * high) * mx.exp(-(magnitude - high) * (magnitude + high))


def _sin_of_pi(x: mx.array) -> mx.array:
    """Return ``|sin(πx)|``, exactly zero at integers."""
    return mx.abs(mx.sin(math.pi * (x - mx.round(x))))
