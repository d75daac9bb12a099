"""Pixel shuffle, channel shuffle, flatten and unflatten, as functions and layers; MLX has none."""

import math
from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn


def pixel_shuffle(x: mx.array, upscale_factor: int) -> mx.array:
    """Rearrange channels into ``r × r`` pixels; matches ``aten::pixel_shuffle``.

    Args:
        x: ``(*, H, W, C·r²)``.
        upscale_factor: ``r``.

    Returns:
        ``(*, H·r, W·r, C)``.

    Raises:
        ValueError: ``r²`` does not divide the channels, or ``x`` has fewer than 3 axes.
    """
    r = upscale_factor
    _check_image("pixel_shuffle", x, r)
    *leading, height, width, channels = x.shape
    if channels % (r * r):
        raise ValueError(
            f"[pixel_shuffle] {channels} channels are no multiple of upscale_factor² = {r * r}."
        )
    count = math.prod(leading)
    split = x.reshape(count, height, width, channels // (r * r), r, r)
    y = split.transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(*leading, height * r, width * r, channels // (r * r))


def pixel_unshuffle(x: mx.array, downscale_factor: int) -> mx.array:
    """Rearrange ``r × r`` pixels into channels; matches ``aten::pixel_unshuffle``.

    Args:
        x: ``(*, H·r, W·r, C)``.
        downscale_factor: ``r``.

    Returns:
        ``(*, H, W, C·r²)``.

    Raises:
        ValueError: ``r`` does not divide height and width, or ``x`` has fewer than 3 axes.
    """
    r = downscale_factor
    _check_image("pixel_unshuffle", x, r)
    *leading, height, width, channels = x.shape
    if height % r or width % r:
        raise ValueError(
            f"[pixel_unshuffle] height {height} and width {width} must be multiples of "
            f"downscale_factor={r}."
        )
    count = math.prod(leading)
    split = x.reshape(count, height // r, r, width // r, r, channels)
    y = split.transpose(0, 1, 3, 5, 2, 4)
    return y.reshape(*leading, height // r, width // r, channels * r * r)


def channel_shuffle(x: mx.array, groups: int) -> mx.array:
    """Interleave the channels of ``groups``; matches ``aten::channel_shuffle``.

    Args:
        x: ``(N, *S, C)`` with a spatial axis or more.
        groups: divides ``C``.

    Returns:
        An array of the shape of ``x``.

    Raises:
        ValueError: ``groups`` does not divide the channels, or ``x`` has fewer than 3 axes.
    """
    channels = x.shape[-1]
    if x.ndim < 3 or groups < 1 or channels % groups:
        raise ValueError(
            f"[channel_shuffle] input must be (N, *spatial, channels) with channels a multiple of "
            f"groups={groups} but got shape {x.shape}."
        )
    split = x.reshape(*x.shape[:-1], groups, channels // groups)
    return split.swapaxes(-1, -2).reshape(x.shape)


def _check_image(layer: str, x: mx.array, factor: int) -> None:
    if x.ndim < 3 or factor < 1:
        raise ValueError(
            f"[{layer}] input must be (*, H, W, C) and the factor positive but got shape {x.shape} "
            f"and factor {factor}."
        )


class PixelShuffle(nn.Module):
    """:func:`pixel_shuffle` by a fixed factor; matches ``torch.nn.PixelShuffle``."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def _extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``(*, H, W, C·r²)`` to ``(*, H·r, W·r, C)``."""
        return pixel_shuffle(x, self.upscale_factor)


class PixelUnshuffle(nn.Module):
    """:func:`pixel_unshuffle` by a fixed factor; matches ``torch.nn.PixelUnshuffle``."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def _extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``(*, H·r, W·r, C)`` to ``(*, H, W, C·r²)``."""
        return pixel_unshuffle(x, self.downscale_factor)


class ChannelShuffle(nn.Module):
    """:func:`channel_shuffle` of fixed groups; matches ``torch.nn.ChannelShuffle``."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def _extra_repr(self) -> str:
        return f"groups={self.groups}"

    def __call__(self, x: mx.array) -> mx.array:
        """Interleave the channels of ``(N, *S, C)``."""
        return channel_shuffle(x, self.groups)


class Flatten(nn.Module):
    """``mx.flatten`` of axes ``start_axis`` to ``end_axis``; matches ``torch.nn.Flatten``.

    The input is in PyTorch's axis order. Flattened channels last, the elements would be in another
    order than a linear layer trained after it expects.
    """

    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        super().__init__()
        self.start_axis, self.end_axis = start_axis, end_axis

    def _extra_repr(self) -> str:
        return f"start_axis={self.start_axis}, end_axis={self.end_axis}"

    def __call__(self, x: mx.array) -> mx.array:
        """Join the axes into one."""
        return mx.flatten(x, self.start_axis, self.end_axis)


class Unflatten(nn.Module):
    """``mx.unflatten`` of one axis; matches ``torch.nn.Unflatten``, in PyTorch's axis order."""

    def __init__(self, axis: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.axis, self.shape = axis, tuple(shape)

    def _extra_repr(self) -> str:
        return f"axis={self.axis}, shape={self.shape}"

    def __call__(self, x: mx.array) -> mx.array:
        """Split the axis."""
        return mx.unflatten(x, self.axis, self.shape)
