"""Statistics of an array and their application, what all normalisations share.

Sums are short, one axis and one block at a time: MLX on the CPU adds the values of a sum one after
another, so that the rounding error of a long one grows with its length. Half precision is widened
to float32, and the variance is taken about the mean.
"""

import math

import mlx.core as mx

# Values added in a row: few enough for the rounding errors of a sum to stay small.
_BLOCK = 1024


def standardised(
    x: mx.array,
    axes: tuple[int, ...],
    weight: mx.array | None,
    bias: mx.array | None,
    eps: float,
) -> mx.array:
    """Return ``x`` less its mean over ``axes``, over its deviation there, scaled and shifted."""
    wide = upcast(x)
    centred = wide - mean_keepdims(wide, axes)
    variance = mean_keepdims(mx.square(centred), axes)
    return scaled(centred, variance, weight, bias, eps).astype(x.dtype)


def with_statistics(
    x: mx.array,
    average: mx.array,
    variance: mx.array,
    weight: mx.array | None,
    bias: mx.array | None,
    eps: float,
) -> mx.array:
    """Return ``x`` standardised by statistics taken elsewhere, scaled and shifted."""
    centred = upcast(x) - upcast(average)
    return scaled(centred, upcast(variance), weight, bias, eps).astype(x.dtype)


def scaled(
    centred: mx.array,
    variance: mx.array,
    weight: mx.array | None,
    bias: mx.array | None,
    eps: float,
) -> mx.array:
    """Return ``centred / sqrt(variance + eps) * weight + bias``."""
    scale = mx.rsqrt(variance + eps)
    y = centred * (scale if weight is None else scale * weight)
    return y if bias is None else y + bias


def mean_keepdims(x: mx.array, axes: tuple[int, ...]) -> mx.array:
    """Return the mean over ``axes``, which stay with size 1."""
    count = math.prod(x.shape[axis] for axis in axes)
    for axis in axes:
        x = _sum(x, axis)
    return x / count


def upcast(x: mx.array) -> mx.array:
    """Return half precision as float32, anything else as it is."""
    return x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x


def _sum(x: mx.array, axis: int) -> mx.array:
    blocks, rest = divmod(x.shape[axis], _BLOCK)
    if blocks == 0 or (blocks, rest) == (1, 0):
        return x.sum(axis=axis, keepdims=True)
    whole, remainder = mx.split(x, [blocks * _BLOCK], axis=axis)
    total = mx.unflatten(whole, axis, (blocks, _BLOCK)).sum(axis=axis + 1)
    return _sum(total, axis) + remainder.sum(axis=axis, keepdims=True)
