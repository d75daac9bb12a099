"""Division and remainders as PyTorch defines them, where MLX has none or another one."""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def fmod(x: mx.array, y: mx.array | int | float) -> mx.array:
    """Return the remainder with the sign of the dividend, as ``torch.fmod``.

    Args:
        x: dividend of any shape, floating or integer.
        y: divisor, broadcast against ``x``.
    """
    size: Any = abs(y)
    rest = mx.remainder(abs(x), size)
    return mx.where(x < 0, -rest, rest)


def floor_divide(x: mx.array, y: mx.array | int | float) -> mx.array:
    """Return the quotient rounded down, as ``torch.floor_divide`` of floating values.

    Not ``floor(x / y)``, which is 10 for 1 / 0.1 because the quotient itself is rounded: the exact
    remainder is taken off first, as in Python's ``//``.

    Args:
        x: dividend of any shape.
        y: divisor, broadcast against ``x``.
    """
    rest = fmod(x, y)
    near = (x - rest) / y
    near = mx.where((rest != 0) & ((rest < 0) != (y < 0)), near - 1, near)
    whole = mx.floor(near)
    whole = mx.where(near - whole > 0.5, whole + 1, whole)
    return mx.where(y == 0, x / y, whole)


def truncated_divide(x: mx.array, y: mx.array | int | float) -> mx.array:
    """Return the quotient of integers rounded towards zero, as ``torch.div(…, "trunc")``.

    Args:
        x: dividend of any shape and integer dtype.
        y: divisor, broadcast against ``x``.
    """
    whole = x // y
    return mx.where((whole < 0) & (whole * y != x), whole + 1, whole)
