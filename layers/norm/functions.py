"""Batch, instance, group, layer and RMS normalisation as PyTorch computes them, channels last.

The layers of ``mlx.nn`` (MLX 0.32.4) are not enough where

* there are many values: on the CPU MLX adds them one after another, so that over 32³ voxels the
  variance is off by 35 units roundoff in ``InstanceNorm`` and 400 in ``GroupNorm``, over 96³ the
  output by thousands, and by its magnitude where the mean is far from zero;
* the input has 5 dimensions (``BatchNorm``) or no batch (``InstanceNorm`` takes height for one);
* ``InstanceNorm`` has running statistics, or ``BatchNorm`` averages them cumulatively;
* there is a weight without a bias, ``eps`` is zero, or several axes are normalised.

The functions are pure: updated running statistics are returned, and nothing changes in place.
"""

import math
from collections.abc import Sequence

import mlx.core as mx

from mlxport.layers.norm.statistics import (
    mean_keepdims,
    normalise,
    normalise_by,
    scale_and_shift,
    upcast,
)


def batch_norm(
    x: mx.array,
    running_mean: mx.array | None = None,
    running_var: mx.array | None = None,
    weight: mx.array | None = None,
    bias: mx.array | None = None,
    training: bool = False,
    eps: float = 1e-5,
) -> mx.array:
    """Normalise every channel over the batch and all spatial axes.

    Matches ``torch.nn.functional.batch_norm``; :func:`updated_batch_statistics` returns the running
    statistics after it.

    Args:
        x: ``(N, *S, C)`` or ``(N, C)``, of any rank.
        running_mean: ``(C,)``, used where not training.
        running_var: ``(C,)``, used where not training.
        weight: ``(C,)`` or None.
        bias: ``(C,)`` or None.
        training: Whether to use the statistics of ``x``.
        eps: Added to the variance.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        ValueError: Not training and running statistics are missing, training on one value per
            channel, ``eps`` is negative or, in training, zero, or ``x`` has fewer than 2
            dimensions.
    """
    _check_ndim("batch_norm", x, 2)
    if eps < 0 or (training and eps == 0):
        raise ValueError(
            f"[batch_norm] 'eps' must be positive in training, and never negative, but got {eps}."
        )
    if training:
        _check_count("batch_norm", x, math.prod(x.shape[:-1]))
        return normalise(x, _batch_axes(x), weight, bias, eps)
    if running_mean is None or running_var is None:
        raise ValueError("[batch_norm] running statistics are needed unless training.")
    return normalise_by(x, running_mean, running_var, weight, bias, eps)


def instance_norm(
    x: mx.array,
    running_mean: mx.array | None = None,
    running_var: mx.array | None = None,
    weight: mx.array | None = None,
    bias: mx.array | None = None,
    use_input_stats: bool = True,
    eps: float = 1e-5,
) -> mx.array:
    """Normalise every channel of every sample over its spatial axes.

    Matches ``torch.nn.functional.instance_norm``; :func:`updated_instance_statistics` returns the
    running statistics after it.

    Args:
        x: ``(N, *S, C)``, of any rank from 3.
        running_mean: ``(C,)``, used unless ``use_input_stats``.
        running_var: ``(C,)``, used unless ``use_input_stats``.
        weight: ``(C,)`` or None.
        bias: ``(C,)`` or None.
        use_input_stats: Whether to use the statistics of ``x``.
        eps: Added to the variance.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        ValueError: Running statistics are needed and missing, there is only one value per channel
            to compute statistics of, or ``x`` has fewer than 3 dimensions.
    """
    _check_ndim("instance_norm", x, 3)
    if use_input_stats:
        _check_count("instance_norm", x, math.prod(x.shape[1:-1]))
        return normalise(x, _spatial_axes(x), weight, bias, eps)
    if running_mean is None or running_var is None:
        raise ValueError("[instance_norm] running statistics are needed to use them.")
    return normalise_by(x, running_mean, running_var, weight, bias, eps)


def group_norm(
    x: mx.array,
    num_groups: int,
    weight: mx.array | None = None,
    bias: mx.array | None = None,
    eps: float = 1e-5,
) -> mx.array:
    """Normalise every sample over the channels of a group and all spatial axes.

    Matches ``torch.nn.functional.group_norm``: a group is ``C / num_groups`` adjacent channels.

    Args:
        x: ``(N, *S, C)`` or ``(N, C)``, of any rank.
        num_groups: The number of groups.
        weight: ``(C,)`` or None.
        bias: ``(C,)`` or None.
        eps: Added to the variance.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        ValueError: ``num_groups`` does not divide the channels, there is only one value per group,
            or ``x`` has fewer than 2 dimensions.
    """
    _check_ndim("group_norm", x, 2)
    channels = x.shape[-1]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(
            f"[group_norm] 'num_groups' must divide the {channels} channels but got {num_groups}."
        )
    _check_count("group_norm", x, math.prod(x.shape[1:]) // num_groups * x.shape[0])
    group = (num_groups, channels // num_groups)
    grouped = x.reshape(*x.shape[:-1], *group)
    axes = (grouped.ndim - 1, *range(1, grouped.ndim - 2))
    weight, bias = (None if p is None else p.reshape(group) for p in (weight, bias))
    return normalise(grouped, axes, weight, bias, eps).reshape(x.shape)


def layer_norm(
    x: mx.array,
    normalized_shape: Sequence[int],
    weight: mx.array | None = None,
    bias: mx.array | None = None,
    eps: float = 1e-5,
) -> mx.array:
    """Normalise over the last axes, as many as ``normalized_shape`` has.

    Matches ``torch.nn.functional.layer_norm``.

    Args:
        x: ``(*, *normalized_shape)``.
        normalized_shape: The sizes of the axes normalised over.
        weight: Of shape ``normalized_shape`` or None.
        bias: Of shape ``normalized_shape`` or None.
        eps: Added to the variance.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        ValueError: ``x`` does not end in ``normalized_shape``.
    """
    axes = _last_axes("layer_norm", x, normalized_shape)
    return normalise(x, axes, weight, bias, eps)


def layer_statistics(
    x: mx.array, normalized_shape: Sequence[int], eps: float
) -> tuple[mx.array, mx.array]:
    """Return mean and reciprocal deviation by which a layer norm goes, in the dtype of ``x``.

    Matches the second and third result of ``torch.native_layer_norm``.

    Args:
        x: ``(*B, *normalized_shape)``, floating.
        normalized_shape: The last sizes of ``x``.
        eps: Added to the variance.

    Returns:
        Both of the shape of ``x`` with those sizes 1.
    """
    return _moments(x, _last_axes("layer_statistics", x, normalized_shape), eps)


def group_statistics(x: mx.array, num_groups: int, eps: float) -> tuple[mx.array, mx.array]:
    """Return mean and reciprocal deviation by which a group norm goes, in the dtype of ``x``.

    Matches the second and third result of ``torch.native_group_norm``.

    Args:
        x: ``(N, *S, C)``, floating.
        num_groups: Of the channels.
        eps: Added to the variance.

    Returns:
        Both ``(N, num_groups)``.
    """
    grouped = x.reshape(x.shape[0], -1, num_groups, x.shape[-1] // num_groups)
    average, scale = _moments(grouped, (1, 3), eps)
    return average.squeeze((1, 3)), scale.squeeze((1, 3))


def _moments(x: mx.array, axes: tuple[int, ...], eps: float) -> tuple[mx.array, mx.array]:
    wide = upcast(x)
    average = mean_keepdims(wide, axes)
    variance = mean_keepdims(mx.square(wide - average), axes)
    return average.astype(x.dtype), mx.rsqrt(variance + eps).astype(x.dtype)


def rms_norm(
    x: mx.array,
    normalized_shape: Sequence[int],
    weight: mx.array | None = None,
    eps: float | None = None,
) -> mx.array:
    """Divide by the root of the mean square over the last axes.

    Matches ``torch.nn.functional.rms_norm``.

    Args:
        x: ``(*, *normalized_shape)``.
        normalized_shape: The sizes of the axes normalised over.
        weight: Of shape ``normalized_shape`` or None.
        eps: Added to the mean square; None stands for float32's machine epsilon, or float64's
            for such input.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        ValueError: ``x`` does not end in ``normalized_shape``.
    """
    axes = _last_axes("rms_norm", x, normalized_shape)
    wide = upcast(x)
    if eps is None:
        eps = mx.finfo(wide.dtype).eps
    return scale_and_shift(wide, mean_keepdims(mx.square(wide), axes), weight, None, eps).astype(
        x.dtype
    )


def updated_batch_statistics(
    x: mx.array, running_mean: mx.array, running_var: mx.array, momentum: float | mx.array
) -> tuple[mx.array, mx.array]:
    """Return the running mean and variance after a training step of :func:`batch_norm` on ``x``.

    An empty ``x`` leaves them unchanged.
    """
    if x.size == 0:
        return running_mean, running_var
    return _updated(x, _batch_axes(x), running_mean, running_var, momentum)


def updated_instance_statistics(
    x: mx.array, running_mean: mx.array, running_var: mx.array, momentum: float | mx.array
) -> tuple[mx.array, mx.array]:
    """Return the running mean and variance after a training step of :func:`instance_norm`."""
    return _updated(x, _spatial_axes(x), running_mean, running_var, momentum)


def _updated(
    x: mx.array,
    axes: tuple[int, ...],
    running_mean: mx.array,
    running_var: mx.array,
    momentum: float | mx.array,
) -> tuple[mx.array, mx.array]:
    wide = upcast(x)
    centre = mean_keepdims(wide, axes)
    count = math.prod(x.shape[axis] for axis in axes)
    unbiased = mean_keepdims(mx.square(wide - centre), axes) * (count / (count - 1))
    # instance_norm has statistics per sample: their average updates the running ones
    samples = tuple(range(x.ndim - 1))

    def step(old: mx.array, new: mx.array) -> mx.array:
        new = mean_keepdims(new, samples).reshape(-1)
        return ((1 - momentum) * upcast(old) + momentum * new).astype(old.dtype)

    return step(running_mean, centre), step(running_var, unbiased)


def _check_ndim(name: str, x: mx.array, least: int) -> None:
    if x.ndim < least:
        raise ValueError(
            f"[{name}] input must have {least} dimensions or more, channels last, "
            f"but got shape {x.shape}."
        )


def _check_count(name: str, x: mx.array, count: int) -> None:
    if count == 1:
        raise ValueError(
            f"[{name}] statistics need more than one value per channel but got shape {x.shape}."
        )


def _last_axes(name: str, x: mx.array, normalized_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"[{name}] input must end in {shape} but got shape {x.shape}.")
    return tuple(range(x.ndim - len(shape), x.ndim))


def _batch_axes(x: mx.array) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _spatial_axes(x: mx.array) -> tuple[int, ...]:
    return tuple(range(1, x.ndim - 1))
