"""Polynomials: of given coefficients, and the classical orthogonal ones that MLX lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from mlxport.layers.norm.statistics import upcast

# Of degrees that are known only when the model runs.
_MOST = 128
# Above it, Chebyshev polynomials between -1 and 1 are cosines: their recurrence loses digits.
_RECURRED = 8

_Step = Callable[[mx.array, mx.array, int], mx.array]


def polynomial(coefficients: Sequence[float], x: mx.array) -> mx.array:
    """Evaluate a polynomial whose coefficients are given from the constant upwards."""
    y = mx.full(x.shape, coefficients[-1], dtype=x.dtype)
    for coefficient in coefficients[-2::-1]:
        y = y * x + coefficient
    return y


def chebyshev(x: mx.array, n: mx.array | int, kind: str = "t", shifted: bool = False) -> mx.array:
    """Return Chebyshev polynomials of degree ``n``.

    Matches ``torch.special.chebyshev_polynomial_t``, ``_u``, ``_v`` and ``_w``; 0 of a negative
    degree.

    Args:
        x: floating.
        n: the degree, or an array of degrees that broadcasts with ``x``; beyond 128, those of an
            array give NaN outside of -1 … 1.
        kind: ``"t"``, ``"u"``, ``"v"`` or ``"w"``: the first to the fourth.
        shifted: of ``2x - 1``, as ``torch.special.shifted_chebyshev_polynomial_t``.
    """
    wide = upcast(x)
    wide = 2 * wide - 1 if shifted else wide
    first = {"t": wide, "u": 2 * wide, "v": 2 * wide - 1, "w": 2 * wide + 1}[kind]
    value = _recurrence(wide, n, first, lambda q, p, k: 2 * wide * q - p)
    if isinstance(n, int):
        if n > _RECURRED:
            value = mx.where(mx.abs(wide) < 1, _chebyshev_inside(wide, n, kind), value)
    else:
        n = _whole(n)
        inside = (mx.abs(wide) < 1) & (n > _RECURRED)
        value = mx.where(inside, _chebyshev_inside(wide, n, kind), value)
    return value.astype(x.dtype)


def hermite_h(x: mx.array, n: mx.array | int) -> mx.array:
    """Return physicists' Hermite polynomials, as ``torch.special.hermite_polynomial_h``.

    Args:
        x: floating.
        n: the degree, or an array of degrees that broadcasts with ``x``; NaN beyond 128.
    """
    wide = upcast(x)
    value = _recurrence(wide, n, 2 * wide, lambda q, p, k: 2 * (wide * q - (k - 1) * p))
    return _up_to_most(value, n).astype(x.dtype)


def hermite_he(x: mx.array, n: mx.array | int) -> mx.array:
    """Return probabilists' Hermite polynomials, as ``torch.special.hermite_polynomial_he``.

    Args:
        x: floating.
        n: the degree, or an array of degrees that broadcasts with ``x``; NaN beyond 128.
    """
    wide = upcast(x)
    value = _recurrence(wide, n, wide, lambda q, p, k: wide * q - (k - 1) * p)
    return _up_to_most(value, n).astype(x.dtype)


def laguerre_l(x: mx.array, n: mx.array | int) -> mx.array:
    """Return Laguerre polynomials, as ``torch.special.laguerre_polynomial_l``.

    Args:
        x: floating.
        n: the degree, or an array of degrees that broadcasts with ``x``, NaN beyond 128.
    """
    wide = upcast(x)

    def step(q: mx.array, p: mx.array, k: int) -> mx.array:
        return ((2 * k - 1 - wide) * q - (k - 1) * p) / k

    return _recurrence(wide, n, 1 - wide, step).astype(x.dtype)


def legendre_p(x: mx.array, n: mx.array | int) -> mx.array:
    """Return Legendre polynomials, as ``torch.special.legendre_polynomial_p``.

    Args:
        x: floating.
        n: the degree, or an array of degrees that broadcasts with ``x``, NaN beyond 128.
    """
    wide = upcast(x)

    def step(q: mx.array, p: mx.array, k: int) -> mx.array:
        return ((2 * k - 1) * wide * q - (k - 1) * p) / k

    return _recurrence(wide, n, wide, step).astype(x.dtype)


def _recurrence(x: mx.array, n: mx.array | int, first: mx.array, step: _Step) -> mx.array:
    """Evaluate by the recurrence of three terms: degree 0 is one, degree 1 is ``first``."""
    below, value = mx.ones_like(x), first
    if isinstance(n, int):
        if n < 1:
            return mx.ones_like(x) if n == 0 else mx.zeros_like(x)
        for k in range(2, n + 1):
            below, value = value, step(value, below, k)
        return value
    n = _whole(n)
    reached = mx.where(n >= 1, first, mx.where(n == 0, below, 0.0))
    for k in range(2, _MOST + 1):
        below, value = value, step(value, below, k)
        reached = mx.where(n == k, value, reached)
    return mx.where(n > _MOST, mx.nan, reached)


def _up_to_most(value: mx.array, n: mx.array | int) -> mx.array:
    return mx.full(value.shape, mx.nan) if isinstance(n, int) and n > _MOST else value


def _whole(n: mx.array) -> mx.array:
    """Return degrees as whole numbers in float32: towards zero."""
    wide = n.astype(mx.float32)
    return mx.sign(wide) * mx.floor(mx.abs(wide))


def _chebyshev_inside(x: mx.array, n: mx.array | int, kind: str) -> mx.array:
    angle = mx.arccos(mx.clip(x, -1, 1))
    if kind == "t":
        return mx.cos(n * angle)
    if kind == "u":
        return mx.sin((n + 1) * angle) / mx.sin(angle)
    if kind == "v":
        return mx.cos((n + 0.5) * angle) / mx.cos(angle / 2)
    return mx.sin((n + 0.5) * angle) / mx.sin(angle / 2)
