"""Bessel and Airy functions, which MLX lacks, in float32 precision.

Half precision is computed in float32. The polynomials were fitted at the Chebyshev points of their
intervals, with 40 digits; far from zero they stand for modulus and phase of the Hankel expansion
(Abramowitz and Stegun, 9.2, 9.7 and 10.4).
"""

from __future__ import annotations

import math

import mlx.core as mx

from mlxport.layers.arrays.polynomials import polynomial
from mlxport.layers.norm.statistics import upcast

# √x·exp(-x)·I(x) in 16/x - 1, from x = 8 to infinity, for orders 0 and 1.
_I = (
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
# K(x) + log(x/2)·I(x), less 1/x and over x for order 1, in x²/2 - 1, from x = 0 to 2.
_K_NEAR = (
    (
        -0.303620772916,
        0.340497321086,
        0.071777010343,
        0.00505339206363,
        0.000182805553508,
        4.05566572424e-6,
        6.09431609299e-8,
    ),
    (
        -0.057455856275,
        -0.108664621486,
        -0.0132546404322,
        -0.000672474637139,
        -1.91164734271e-5,
        -3.49646514692e-7,
    ),
)
# √x·exp(x)·K(x) in 4/x - 1, from x = 2 to infinity.
_K_FAR = (
    (
        1.21859533884,
        -0.0310714619596,
        0.00303287573118,
        -0.000479762345053,
        9.96867342996e-5,
        -2.47877990994e-5,
        6.6635656766e-6,
        -2.0504798609e-6,
        1.09510073935e-6,
        -4.14197661933e-7,
    ),
    (
        1.36315188999,
        0.10334973791,
        -0.00556671100509,
        0.000735716356824,
        -0.000139738402247,
        3.29049935997e-5,
        -8.56317020277e-6,
        2.56639373984e-6,
        -1.32153123676e-6,
        4.92253850445e-7,
    ),
)
# The two zeros of J below 8, each in two parts that float32 holds.
_J_ZEROS = (
    ((2.404825448989868, 1.087059046e-7), (5.520078182220459, -7.1934148335e-8)),
    ((3.8317060470581055, -7.6850593153e-8), (7.015586853027344, -1.83211725e-7)),
)
# J(x) over its zeros, and over x for order 1, in x²/32 - 1, from x = 0 to 8.
_J_NEAR = (
    (
        0.0011434937747,
        -0.0021197942895,
        0.00156364314862,
        -0.000641539063854,
        0.000169772134931,
        -3.15734316937e-5,
        4.36657468346e-6,
        -4.6769519227e-7,
        4.03966860173e-8,
        -2.81497236139e-9,
    ),
    (
        0.000194989369859,
        -0.000269752270537,
        0.000158600167772,
        -5.4080087514e-5,
        1.22421766106e-5,
        -1.98889517134e-6,
        2.4424158278e-7,
        -2.37860756872e-8,
        1.84103375408e-9,
    ),
)
# Y(x) - 2/π·log(x)·J(x), with 2/(πx) more and over x for order 1, in x²/32 - 1, from x = 0 to 8.
_Y_NEAR = (
    (
        -0.382250654301,
        -0.828435890369,
        1.64709646748,
        0.144126324272,
        -1.07754760096,
        0.672177071588,
        -0.218958037659,
        0.0463670764957,
        -0.00702464882661,
        0.000806103061245,
        -7.37649895766e-5,
        5.37064289947e-6,
    ),
    (
        0.0707598588212,
        -0.243377428216,
        0.023367571579,
        0.235072040565,
        -0.196398395759,
        0.0785481575388,
        -0.0196287727353,
        0.00342183217191,
        -0.000443781013332,
        4.53319408979e-5,
        -3.63729146781e-6,
    ),
)
# P and Q·x of √(πx/2)·J(x) = P·cos(χ) - Q·sin(χ), in 128/x² - 1, from x = 8 to infinity; χ is
# x - π/4 for order 0 and x - 3π/4 for order 1.
_PHASES = (
    (
        (0.999457274168, -0.000536367164465, 6.15035923717e-6, -2.0650921746e-7),
        (
            -0.124440911061,
            0.00054665193256,
            -1.18166593212e-5,
            5.68414399039e-7,
            -4.6538126744e-8,
            5.36327737955e-9,
        ),
    ),
    (
        (
            1.00090702628,
            0.000898804505471,
            -7.95963902018e-6,
            2.47103478735e-7,
            -1.49294870793e-8,
        ),
        (
            0.37421499222,
            -0.000769714856976,
            1.45693419737e-5,
            -6.70702558376e-7,
            5.24418632543e-8,
        ),
    ),
)
# Ai(x) in (x + 0.75) / 1.75, from x = -2.5 to 1.
_AIRY_NEAR = (
    0.517772575152,
    -0.22048345557,
    -0.594629439754,
    0.546893304023,
    0.0153445885081,
    -0.222148454014,
    0.0965262131838,
    0.0141021953649,
    -0.0252233078432,
    0.00674692713875,
    0.00149308142716,
    -0.00138664229507,
    0.000235389294427,
    8.4867247912e-5,
    -3.54257938933e-5,
)
# 2√π·x^¼·exp(ξ)·Ai(x) in 4/3/ξ - 1, from x = 1 to infinity; ξ is 2/3·x^1.5.
_AIRY_FAR = (
    0.960666036512,
    -0.0310345973003,
    0.00570117751077,
    -0.00160664259031,
    0.000563574039504,
    -0.000222106364515,
    9.75253312381e-5,
    -6.2509642843e-5,
    3.36052205541e-5,
    8.66272598507e-6,
    -6.80244248159e-6,
    -1.70294260176e-5,
    1.06562388417e-5,
)
# P and Q·ξ of √π·x^¼·Ai(-x) = P·cos(ξ - π/4) + Q·sin(ξ - π/4), in 2/(0.144·ξ²) - 1.
_AIRY_PHASES = (
    (
        0.997557290401,
        -0.00225736942013,
        0.000153120784993,
        -2.38653076768e-5,
        5.38566418911e-6,
        -1.58446843368e-6,
        9.56798807577e-7,
        -4.23589457252e-7,
    ),
    (
        0.0671286027603,
        -0.00200681067607,
        0.000237123502515,
        -4.93192310516e-5,
        1.39636112769e-5,
        -4.83001175022e-6,
        2.19955595881e-6,
        -1.02576736973e-6,
        -2.44740329587e-8,
        7.22737920239e-8,
        4.11561406764e-7,
        -2.54266131346e-7,
    ),
)


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
    near = _near_i(low, order)
    far = polynomial(_I[order], 16 / high - 1) / mx.sqrt(high)
    if scaled:
        near = near * mx.exp(-low)
    else:
        half = mx.exp(high / 2)  # exp(high) would overflow before the function does
        far = far * half * half
    value = mx.where(magnitude <= 8, near, far)
    value = mx.where(wide < 0, -value, value) if order else value
    return mx.where(mx.isnan(wide), wide, value).astype(x.dtype)


def bessel_k(x: mx.array, order: int, scaled: bool = False) -> mx.array:
    """Return the modified Bessel function of the second kind.

    Matches ``torch.special.modified_bessel_k0`` and ``modified_bessel_k1``: infinity at 0 and NaN
    below it.

    Args:
        x: any shape, floating.
        order: 0 or 1.
        scaled: multiplied by ``exp(x)``, as ``torch.special.scaled_modified_bessel_k0``.
    """
    wide = upcast(x)
    low, high = mx.clip(wide, 1e-45, 2), mx.maximum(wide, 2)
    near = polynomial(_K_NEAR[order], mx.square(low) / 2 - 1)
    if order:
        near = near * low + 1 / low
        near = near + mx.log(low / 2) * _near_i(low, 1)
    else:
        near = near - mx.log(low / 2) * _near_i(low, 0)
    far = polynomial(_K_FAR[order], 4 / high - 1) / mx.sqrt(high)
    if scaled:
        near = near * mx.exp(low)
    else:
        far = far * mx.exp(-high)
    value = mx.where(wide <= 2, near, far)
    value = mx.where(wide == 0, mx.inf, value)
    return mx.where(wide >= 0, value, mx.nan).astype(x.dtype)


def bessel_j(x: mx.array, order: int) -> mx.array:
    """Return the Bessel function of the first kind, as ``torch.special.bessel_j0`` and ``j1``.

    NaN at the infinities.

    Args:
        x: any shape, floating.
        order: 0 or 1.
    """
    wide = upcast(x)
    magnitude = mx.abs(wide)
    value = mx.where(
        magnitude <= 8, _near_j(mx.minimum(magnitude, 8), order), _waves(magnitude, order)[0]
    )
    value = mx.where(wide < 0, -value, value) if order else value
    return mx.where(mx.isfinite(wide), value, mx.nan).astype(x.dtype)


def bessel_y(x: mx.array, order: int) -> mx.array:
    """Return the Bessel function of the second kind, as ``torch.special.bessel_y0`` and ``y1``.

    Minus infinity at 0, NaN below it and at infinity.

    Args:
        x: any shape, floating.
        order: 0 or 1.
    """
    wide = upcast(x)
    low = mx.clip(wide, 1e-45, 8)
    near = polynomial(_Y_NEAR[order], mx.square(low) / 32 - 1)
    logarithm = 2 / math.pi * mx.log(low) * _near_j(low, order)
    near = near * low + (logarithm - 2 / math.pi / low) if order else near + logarithm
    value = mx.where(wide <= 8, near, _waves(wide, order)[1])
    value = mx.where(wide == 0, -mx.inf, value)
    return mx.where((wide >= 0) & mx.isfinite(wide), value, mx.nan).astype(x.dtype)


def spherical_bessel_j0(x: mx.array) -> mx.array:
    """Return ``sin(x)/x``, 1 at 0, as ``torch.special.spherical_bessel_j0``."""
    wide = upcast(x)
    square = mx.square(mx.minimum(mx.abs(wide), 0.5))
    near = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    far = mx.sin(wide) / mx.where(wide == 0, 1, wide)
    value = mx.where(mx.abs(wide) < 0.5, near, far)
    value = mx.where(mx.isinf(wide), 0.0, value)
    return mx.where(mx.isnan(wide), wide, value).astype(x.dtype)


def airy_ai(x: mx.array) -> mx.array:
    """Return the Airy function Ai, as ``torch.special.airy_ai``: NaN at the infinities."""
    wide = upcast(x)
    near = polynomial(_AIRY_NEAR, (mx.clip(wide, -2.5, 1) + 0.75) / 1.75)
    high = mx.maximum(mx.abs(wide), 1)
    root = mx.sqrt(high)
    xi = 2 / 3 * high * root
    quarter = math.sqrt(math.pi) * mx.sqrt(root)
    above = polynomial(_AIRY_FAR, 4 / 3 / xi - 1) * mx.exp(-xi) / (2 * quarter)
    phases = 2 / (0.144 * mx.square(mx.maximum(xi, 2.635))) - 1
    cosine, sine = mx.cos(xi), mx.sin(xi)
    p, q = (polynomial(coefficients, phases) for coefficients in _AIRY_PHASES)
    below = (p * (cosine + sine) + q / xi * (sine - cosine)) * (math.sqrt(0.5) / quarter)
    value = mx.where(wide > 1, above, mx.where(wide < -2.5, below, near))
    return mx.where(mx.isfinite(wide), value, mx.nan).astype(x.dtype)


def _near_i(low: mx.array, order: int) -> mx.array:
    """Evaluate the power series of the modified function, up to 8."""
    quarter = mx.square(low) / 4
    near = mx.ones_like(low)
    for k in range(20, 0, -1):
        near = 1 + quarter / (k * (k + order)) * near
    return near * (low / 2 if order else 1)


def _near_j(low: mx.array, order: int) -> mx.array:
    """Evaluate J up to 8 by its zeros and a polynomial: to relative precision beside a zero."""
    value = polynomial(_J_NEAR[order], mx.square(low) / 32 - 1)
    for high, rest in _J_ZEROS[order]:
        value = value * ((low - high) - rest) * (low + high)
    return value * low if order else value


def _waves(x: mx.array, order: int) -> tuple[mx.array, mx.array]:
    """Evaluate J and Y from 8."""
    high = mx.where(mx.isfinite(x), mx.maximum(x, 8), 8.0)
    p, q = (polynomial(c, 128 / mx.square(high) - 1) for c in _PHASES[order])
    q = q / high
    cosine, sine = mx.cos(high), mx.sin(high)
    # cos(χ) and sin(χ) times √2, of x itself: x less π/4 would be rounded
    real, imaginary = (sine - cosine, -sine - cosine) if order else (cosine + sine, sine - cosine)
    scale = 1 / mx.sqrt(math.pi * high)
    return (p * real - q * imaginary) * scale, (p * imaginary + q * real) * scale
