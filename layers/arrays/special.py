"""Special functions that MLX lacks (erfc, gamma and Bessel functions), in float32 precision.

Half precision is computed in float32. The polynomials were fitted at the Chebyshev points of their
intervals, with 40 digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx

from mlxport.layers.norm.statistics import upcast

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
# √x·exp(-x)·I(x) in 16/x - 1, from x = 8 to infinity, for orders 0 and 1.
_BESSEL = (
    (
        0.402176509405,
        0.00336055203139,
        0.000136217407835,
        1.11415421896e-5,
        1.47547563562e-6,
        3.03833090867e-7,
        1.09102329411e-7,
        3.36358022352e-8,
    ),
    (
        0.389398459074,
        -0.00974957724132,
        -0.000219237385356,
        -1.50370471438e-5,
        -1.82500693871e-6,
        -3.54819541653e-7,
        -1.2318419674e-7,
        -3.78560247933e-8,
    ),
)


def erfc(x: mx.array) -> mx.array:
    """Return ``1 - erf(x)`` without cancellation, as ``torch.erfc``.

    Args:
        x: any shape, floating.
    """
    wide = upcast(x)
    magnitude = mx.abs(wide)
    tail = _exp_of_minus_square(magnitude) * _erfcx(magnitude)
    return mx.where(wide < 0, 2 - tail, tail).astype(x.dtype)


def erfcx(x: mx.array) -> mx.array:
    """Return ``exp(x²)·erfc(x)``, as ``torch.special.erfcx``."""
    wide = upcast(x)
    magnitude = mx.abs(wide)
    tail = _erfcx(magnitude)
    magnitude = mx.minimum(magnitude, 30.0)  # its square's exponential is infinite already
    high = mx.round(magnitude * 64) / 64
    square = mx.exp(high * high) * mx.exp((magnitude - high) * (magnitude + high))
    return mx.where(wide < 0, 2 * square - tail, tail).astype(x.dtype)


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
    near = (z - 1) * (z - 2) * _polynomial(_LGAMMA, z - 1.5) + mx.log(factors)
    far = (magnitude - 0.5) * mx.log(magnitude) - magnitude + 0.5 * math.log(2 * math.pi)
    far = far + 1 / (12 * magnitude) - 1 / (360 * magnitude * magnitude * magnitude)
    value = mx.where(magnitude > 8, mx.where(mx.isinf(magnitude), mx.inf, far), near)
    # Γ(-x)·Γ(x)·x·sin(πx) = -π
    mirrored = mx.log(math.pi / magnitude) - mx.log(_sin_of_pi(magnitude)) - value
    whole = wide == mx.floor(wide)
    below = mx.where(whole, mx.inf, mirrored)
    return mx.where(wide <= 0, below, value).astype(x.dtype)


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
    series = _polynomial(_DIGAMMA, 1 / mx.square(z)) / mx.square(z)
    value = mx.log(z) - 0.5 / z - series + sums
    turn = wide - mx.round(wide)
    reflected = value - math.pi * mx.cos(math.pi * turn) / mx.sin(math.pi * turn)
    value = mx.where(mirrored, reflected, value)
    value = mx.where(mirrored & (wide == mx.floor(wide)), mx.nan, value)
    value = mx.where(wide == mx.inf, mx.inf, value)
    return mx.where(wide == 0, -1 / wide, value).astype(x.dtype)


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
    value = sums + 1 / z + 0.5 / square + _polynomial(_TRIGAMMA, 1 / square) / (square * z)
    sine = math.pi / _sin_of_pi(wide)
    return mx.where(mirrored, mx.square(sine) - value, value).astype(x.dtype)


def bessel_i(x: mx.array, order: int, scaled: bool = False) -> mx.array:
    """Return the modified Bessel function of the first kind, as ``torch.special.i0`` and ``i1``.

    Args:
        x: any shape, floating.
        order: 0 or 1.
        scaled: multiplied by ``exp(-|x|)``, as ``torch.special.i0e`` and ``i1e``.
    """
    wide = upcast(x)
    magnitude = mx.abs(wide)
    low, high = mx.minimum(magnitude, 8), mx.maximum(magnitude, 8)
    quarter = mx.square(low) / 4
    near = mx.ones_like(low)
    for k in range(20, 0, -1):
        near = 1 + quarter / (k * (k + order)) * near
    near = near * (low / 2 if order else 1)
    far = _polynomial(_BESSEL[order], 16 / high - 1) / mx.sqrt(high)
    if scaled:
        near = near * mx.exp(-low)
    else:
        half = mx.exp(high / 2)  # exp(high) would overflow before the function does
        far = far * half * half
    value = mx.where(magnitude <= 8, near, far)
    value = mx.where(wide < 0, -value, value) if order else value
    return mx.where(mx.isnan(wide), wide, value).astype(x.dtype)


def _erfcx(magnitude: mx.array) -> mx.array:
    t = mx.where(mx.isinf(magnitude), mx.ones_like(magnitude), (magnitude - 2) / (magnitude + 2))
    return _polynomial(_ERFCX, t) / (1 + 2 * magnitude)


def _exp_of_minus_square(magnitude: mx.array) -> mx.array:
    """Return ``exp(-magnitude²)``, the square in two parts to keep its rounding error small."""
    magnitude = mx.minimum(magnitude, 30.0)
    high = mx.round(magnitude * 64) / 64
    return mx.exp(-high * high) * mx.exp(-(magnitude - high) * (magnitude + high))


def _sin_of_pi(x: mx.array) -> mx.array:
    """Return ``|sin(πx)|``, exactly zero at integers."""
    return mx.abs(mx.sin(math.pi * (x - mx.round(x))))


def _polynomial(coefficients: Sequence[float], x: mx.array) -> mx.array:
    """Evaluate a polynomial whose coefficients are given from the constant upwards."""
    y = mx.full(x.shape, coefficients[-1], dtype=x.dtype)
    for coefficient in coefficients[-2::-1]:
        y = y * x + coefficient
    return y
