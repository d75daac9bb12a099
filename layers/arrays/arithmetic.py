"""Arithmetic that MLX lacks or defines differently from PyTorch: division, gcd, signs and more."""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def fmod(x: mx.array, y: mx.array | int | float) -> mx.array:
    """Return the remainder with the sign of the dividend, as ``torch.fmod``.

    Args:
        x: dividend of any shape, floating or integer.
        y: divisor, broadcast against ``x``.
    """
    x = x.astype(mx.result_type(x, y)) if isinstance(y, mx.array) else x
    if mx.issubdtype(x.dtype, mx.integer) and not isinstance(y, float):
        rest = mx.remainder(x, y)  # not of magnitudes: that of the smallest integer overflows
        return mx.where((rest != 0) & ((rest < 0) != (x < 0)), rest - y, rest)
    magnitude: Any = abs(y)
    rest = mx.remainder(abs(x * 1.0), magnitude)
    return mx.where(x < 0, -rest, rest)


def floor_divide(x: mx.array, y: mx.array | int | float) -> mx.array:
    """Return the quotient rounded down, as ``torch.floor_divide`` of floating values.

    It is not ``floor(x / y)``, which is 10 for 1 / 0.1, since the quotient is rounded. As in
    Python's ``//``, the exact remainder is subtracted first.

    Args:
        x: dividend of any shape.
        y: divisor, broadcast against ``x``.
    """
    rest = fmod(x, y)
    quotient = (x - rest) / y
    quotient = mx.where((rest != 0) & ((rest < 0) != (y < 0)), quotient - 1, quotient)
    whole = mx.floor(quotient)
    whole = mx.where(quotient - whole > 0.5, whole + 1, whole)
    return mx.where(y == 0, x / y, whole)


def truncated_divide(x: mx.array, y: mx.array | int | float) -> mx.array:
    """Return the quotient of integers rounded towards zero, as ``torch.div(…, "trunc")``.

    Args:
        x: dividend of any shape and integer dtype.
        y: divisor, broadcast against ``x``.
    """
    whole = x // y
    return mx.where((whole < 0) & (whole * y != x), whole + 1, whole)


def greatest_common_divisor(x: mx.array, y: mx.array) -> mx.array:
    """Return the greatest common divisor, not negative, as ``torch.gcd``.

    Args:
        x: any shape and integer dtype.
        y: broadcast against ``x``, of the same dtype.
    """
    a, b = mx.broadcast_arrays(mx.abs(x), mx.abs(y))
    # Two consecutive Fibonacci numbers need the most steps: 92 of them fit 63 bits.
    for _ in range(3 * x.dtype.size * 8 // 2):
        rest = mx.where(b == 0, a, mx.remainder(a, mx.where(b == 0, 1, b)))
        a, b = mx.where(b == 0, a, b), mx.where(b == 0, b, rest)
    return a


def least_common_multiple(x: mx.array, y: mx.array) -> mx.array:
    """Return the least common multiple, not negative, as ``torch.lcm``; 0 where both are 0."""
    divisor = greatest_common_divisor(x, y)
    return mx.abs(x // mx.where(divisor == 0, 1, divisor) * y)


def fmax(x: mx.array, y: mx.array) -> mx.array:
    """Return the larger of two values, ignoring a NaN beside a number, as ``torch.fmax``."""
    return mx.where(mx.isnan(x), y, mx.where(mx.isnan(y), x, mx.maximum(x, y)))


def fmin(x: mx.array, y: mx.array) -> mx.array:
    """Return the smaller of two values, ignoring a NaN beside a number, as ``torch.fmin``."""
    return mx.where(mx.isnan(x), y, mx.where(mx.isnan(y), x, mx.minimum(x, y)))


def signbit(x: mx.array) -> mx.array:
    """Return whether the sign bit is set, also of -0 and NaN, as ``torch.signbit``.

    Args:
        x: any shape, not complex.
    """
    bits = {mx.float32: mx.int32, mx.float16: mx.int16, mx.bfloat16: mx.int16}
    return (x.view(bits[x.dtype]) if x.dtype in bits else x) < 0


def copysign(x: mx.array, y: mx.array | float) -> mx.array:
    """Return ``|x|`` with the sign of ``y``, as ``torch.copysign`` of floating values.

    Args:
        x: any shape, floating.
        y: broadcast against ``x``.
    """
    negative = signbit(mx.array(y, dtype=x.dtype) if not isinstance(y, mx.array) else y)
    return mx.where(negative, -mx.abs(x), mx.abs(x))


def nextafter(x: mx.array, y: mx.array) -> mx.array:
    """Return the next float32 number after ``x`` towards ``y``, as ``torch.nextafter``.

    Args:
        x: any shape, float32.
        y: the same shape.
    """
    bits = x.view(mx.int32)
    away = (x > 0) == (y > x)
    stepped = mx.where(away, bits + 1, bits - 1).view(mx.float32)
    least = mx.full(x.shape, 1, dtype=mx.int32).view(mx.float32)
    stepped = mx.where(x == 0, mx.where(y > 0, least, -least), stepped)
    missing = mx.isnan(x) | mx.isnan(y)
    return mx.where(missing, mx.nan, mx.where(x == y, y, stepped))


def hypot(x: mx.array, y: mx.array) -> mx.array:
    """Return ``sqrt(x² + y²)`` without overflow in between, as ``torch.hypot``.

    Args:
        x: any shape, floating.
        y: broadcast against ``x``.
    """
    larger = mx.maximum(mx.abs(x), mx.abs(y))
    smaller = mx.minimum(mx.abs(x), mx.abs(y))
    ratio = smaller / mx.where((larger == 0) | mx.isinf(larger), 1, larger)
    return mx.where(mx.isinf(x) | mx.isinf(y), mx.inf, larger * mx.sqrt(1 + ratio * ratio))


def frexp(x: mx.array) -> tuple[mx.array, mx.array]:
    """Return mantissa and exponent of numbers: ``x`` is ``mantissa * 2**exponent``.

    Matches ``torch.frexp``: magnitudes of mantissas are 0, or from 0.5 up to 1.

    Args:
        x: any shape, floating.

    Returns:
        The mantissas in the dtype of ``x``, and the exponents as int32; of infinities and NaN
        themselves, and 0.
    """
    wide = x.astype(mx.float32)
    denormal = mx.abs(wide) < 2.0**-126
    bits = mx.where(denormal, wide * 2.0**64, wide).view(mx.int32)
    plain = mx.isfinite(wide) & (wide != 0)
    exponent = ((bits >> 23) & 0xFF) - 126 - mx.where(denormal, 64, 0)
    mantissa = ((bits & ~0x7F800000) | (126 << 23)).view(mx.float32)
    mantissa = mx.where(plain, mantissa, wide).astype(x.dtype)
    return mantissa, mx.where(plain, exponent, 0).astype(mx.int32)
