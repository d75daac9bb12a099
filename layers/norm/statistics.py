"""Means and variances of arrays, computed precisely, and normalisation by them.

MLX on the CPU adds the values of a sum one after another, so the rounding error grows with their
number. Here sums are short there: one axis and one block at a time. Half precision is upcast to
float32, and the variance is computed about the mean.
"""

import math

import mlx.core as mx

from mlxport.layers.device.policy import device_policy

# The number of values in one sum: small enough to keep the rounding error small.
_BLOCK = 1024


def normalise(
    x: mx.array,
    axes: tuple[int, ...],
    weight: mx.array | None,
    bias: mx.array | None,
    eps: float,
) -> mx.array:
    """Normalise ``x`` by its mean and variance over ``axes``, then scale and shift it.

    Args:
        x: Any shape, floating.
        axes: Those to normalise over.
        weight: Broadcastable to ``x``, or None.
        bias: Broadcastable to ``x``, or None.
        eps: Added to the variance.

    Returns:
        An array of the shape and dtype of ``x``.
    """
    wide = upcast(x)
    centred = wide - mean_keepdims(wide, axes)
    variance = mean_keepdims(mx.square(centred), axes)
    return scale_and_shift(centred, variance, weight, bias, eps).astype(x.dtype)


def normalise_by(
    x: mx.array,
    average: mx.array,
    variance: mx.array,
    weight: mx.array | None,
    bias: mx.array | None,
    eps: float,
) -> mx.array:
    """Normalise ``x`` by given statistics, then scale and shift it; as :func:`normalise` else."""
    centred = upcast(x) - upcast(average)
    return scale_and_shift(centred, upcast(variance), weight, bias, eps).astype(x.dtype)


def scale_and_shift(
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
    """Return the mean over ``axes``, which are kept with size 1."""
    count = math.prod(x.shape[axis] for axis in axes)
    if not device_policy().blocked_sums:
        return x.sum(axis=axes, keepdims=True) / count
    for axis in axes:
        x = _sum(x, axis)
    return x / count


def upcast(x: mx.array) -> mx.array:
    """Return half precision as float32, any other dtype unchanged."""
    return x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x


def _sum(x: mx.array, axis: int) -> mx.array:
    blocks, rest = divmod(x.shape[axis], _BLOCK)
    if blocks == 0 or (blocks, rest) == (1, 0):
        return x.sum(axis=axis, keepdims=True)
    whole, remainder = mx.split(x, [blocks * _BLOCK], axis=axis)
    total = mx.unflatten(whole, axis, (blocks, _BLOCK)).sum(axis=axis + 1)
    return _sum(total, axis) + remainder.sum(axis=axis, keepdims=True)
