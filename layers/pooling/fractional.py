"""Fractional max pooling: windows of one size at random distances, channels last; MLX has none.

The windows differ for every channel of every sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.windows.geometry import check_hyperparameters, ints_per_axis
from mlxport.layers.windows.windows import first_spatial_axis, spatial_rank


def fractional_max_pool(
    x: mx.array,
    kernel_size: Sequence[int],
    output_size: Sequence[int],
    random_samples: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Return the maximum of every window and its index; as ``aten::fractional_max_pool2d`` and 3d.

    For the same random samples the windows are those of PyTorch. Of equal maxima the first is
    returned, of several NaN the last.

    Args:
        x: ``(N, *S, C)`` or ``(*S, C)``, floating.
        kernel_size: one number per spatial axis, two or three.
        output_size: one number per spatial axis.
        random_samples: ``(N, C, rank)`` from 0 to 1 (``N`` is 1 without a batch), or more of them;
            drawn by MLX's generator where None. In PyTorch's order: in 2-D, that for the last axis
            comes first.

    Returns:
        The maxima in the dtype of ``x`` and their indices in int64, which count the elements of one
        channel; both ``(N, *output_size, C)`` or ``(*output_size, C)``.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
    """
    layer = "fractional_max_pool"
    rank = spatial_rank(layer, "kernel_size", kernel_size)
    kernel = ints_per_axis(kernel_size, rank, "kernel_size", layer)
    outputs = ints_per_axis(output_size, rank, "output_size", layer)
    check_hyperparameters(layer, {"kernel_size": kernel, "output_size": outputs}, {})
    batched = first_spatial_axis(layer, x, rank) == 1
    images = x if batched else x[None]
    samples, *sizes, channels = images.shape
    if any(o + k - 1 > s for o, k, s in zip(outputs, kernel, sizes, strict=True)):
        raise ValueError(
            f"[{layer}] windows of kernel_size={kernel} cannot give output_size={outputs} from "
            f"input of spatial size {tuple(sizes)}: each needs output + kernel - 1 elements."
        )
    if random_samples is None:
        random_samples = mx.random.uniform(shape=(samples, channels, rank)).astype(x.dtype)
    given, *rest = random_samples.shape
    if given < samples or rest != [channels, rank]:
        raise ValueError(
            f"[{layer}] 'random_samples' must be {(samples, channels, rank)}, or of more samples, "
            f"for input of shape {x.shape} but got {random_samples.shape}."
        )
    index = _indices(random_samples[:samples], kernel, outputs, sizes)
    y, places = _maxima(images.reshape(samples, -1, channels), index, math.prod(kernel))
    shape = (samples, *outputs, channels) if batched else (*outputs, channels)
    return y.reshape(shape), places.reshape(shape)


def _starts(sample: mx.array, size: int, kernel: int, outputs: int) -> mx.array:
    """Return where windows start on an axis: ``(N, 1, C)`` samples to ``(N, outputs, C)``."""
    last = mx.full((sample.shape[0], 1, sample.shape[2]), size - kernel, dtype=mx.int64)
    if outputs == 1:
        return last
    # In the dtype of the samples and in PyTorch's order: otherwise windows differ.
    step = mx.array((size - kernel) / (outputs - 1), dtype=sample.dtype)
    numbers = mx.arange(outputs - 1).astype(sample.dtype)[None, :, None]
    starts = ((numbers + sample) * step).astype(mx.int64) - (sample * step).astype(mx.int64)
    return mx.concatenate([starts, last], axis=1)


def _indices(
    random_samples: mx.array,
    kernel: Sequence[int],
    outputs: Sequence[int],
    sizes: Sequence[int],
) -> mx.array:
    """Return the flat indices ``(N, prod(outputs) * prod(kernel), C)`` of all windows."""
    rank = len(sizes)
    samples, channels = random_samples.shape[:2]
    index = mx.zeros((samples, 1, 1, channels), dtype=mx.int64)
    for axis, (size, width, count) in enumerate(zip(sizes, kernel, outputs, strict=True)):
        chosen = rank - 1 - axis if rank == 2 else axis
        starts = _starts(random_samples[:, None, :, chosen], size, width, count)
        # (N, windows so far, taps so far, C), times the windows and taps of this axis
        along = starts[:, :, None] + mx.arange(width)[:, None]
        index = index[:, :, None, :, None] * size + along[:, None, :, None]
        index = index.reshape(samples, -1, math.prod(kernel[: axis + 1]), channels)
    return index.reshape(samples, -1, channels)


def _maxima(x: mx.array, index: mx.array, taps: int) -> tuple[mx.array, mx.array]:
    samples, _, channels = x.shape
    windows = mx.stop_gradient(mx.take_along_axis(x, index, axis=1))
    windows = windows.reshape(samples, -1, taps, channels)
    invalid = mx.isnan(windows)
    last = taps - 1 - mx.argmax(invalid[:, :, ::-1], axis=2)
    best = mx.where(invalid.any(axis=2), last, mx.argmax(windows, axis=2))
    candidates = index.reshape(windows.shape)
    chosen = mx.take_along_axis(candidates, best[:, :, None].astype(mx.int64), axis=2).squeeze(2)
    return mx.take_along_axis(x, chosen, axis=1), chosen


class _FractionalMaxPool(nn.Module):
    """Base of both ranks.

    Args:
        kernel_size: one number, or one per spatial axis.
        output_size: of the output, one number or one per spatial axis.
        output_ratio: in its place: the output's size over the input's, between 0 and 1.
        return_indices: whether to return the indices of the maxima, too.
        samples_shape: ``(N, C, rank)``: the layer then has a parameter ``random_samples``, takes
            input of that many samples and channels, and always has the same windows. Otherwise
            they are drawn at every call, in evaluation, too, as in PyTorch.

    Raises:
        ValueError: both or neither of ``output_size`` and ``output_ratio`` are given, or one is
            out of range.
    """

    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        output_size: int | Sequence[int] | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        samples_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.kernel_size = ints_per_axis(kernel_size, self.rank, "kernel_size", layer)
        if (output_size is None) == (output_ratio is None):
            raise ValueError(
                f"[{layer}] needs one of 'output_size' and 'output_ratio' but got {output_size} "
                f"and {output_ratio}."
            )
        self.output_size = self.output_ratio = None
        if output_size is not None:
            self.output_size = ints_per_axis(output_size, self.rank, "output_size", layer)
        elif output_ratio is not None:
            self.output_ratio = _ratios(layer, output_ratio, self.rank)
        self.return_indices = return_indices
        if samples_shape is not None:
            self.random_samples = mx.random.uniform(shape=tuple(samples_shape))
        self._freeze_samples()

    def unfreeze(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Unfreeze the parameters, of which this layer has none."""
        super().unfreeze(*args, **kwargs)
        self._freeze_samples()
        return self

    def _freeze_samples(self) -> None:
        self.freeze(keys=["random_samples"] if "random_samples" in self else [], recurse=False)

    def _extra_repr(self) -> str:
        size = f"output_size={self.output_size}, output_ratio={self.output_ratio}"
        return f"kernel_size={self.kernel_size}, {size}"

    def __call__(self, x: mx.array) -> Any:
        sizes = self.output_size
        if self.output_ratio is not None:
            spatial = x.shape[-1 - self.rank : -1]
            sizes = tuple(int(n * r) for n, r in zip(spatial, self.output_ratio, strict=True))
        pooled = fractional_max_pool(x, self.kernel_size, sizes or (), self.get("random_samples"))
        return pooled if self.return_indices else pooled[0]


def _ratios(layer: str, given: float | Sequence[float], rank: int) -> tuple[float, ...]:
    ratios = tuple(given) if isinstance(given, Sequence) else (given,) * rank
    if len(ratios) != rank or not all(0 < ratio < 1 for ratio in ratios):
        raise ValueError(
            f"[{layer}] 'output_ratio' must be a number between 0 and 1 or a tuple of {rank} but "
            f"got {given}."
        )
    return ratios


class FractionalMaxPool2d(_FractionalMaxPool):
    """:func:`fractional_max_pool` of images; matches ``torch.nn.FractionalMaxPool2d``.

    Shape:
        - Input: ``(N, H, W, C)`` or ``(H, W, C)``
        - Output: ``(N, *output_size, C)`` or ``(*output_size, C)``, and the same shape for indices
    """

    rank = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """:func:`fractional_max_pool` of volumes; matches ``torch.nn.FractionalMaxPool3d``.

    Shape:
        - Input: ``(N, D, H, W, C)`` or ``(D, H, W, C)``
        - Output: ``(N, *output_size, C)`` or ``(*output_size, C)``, and the same shape for indices
    """

    rank = 3
