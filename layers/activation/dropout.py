"""Dropout layers for every ``p`` from 0 to 1, as PyTorch's; in evaluation they return their input.

``mlx.nn`` has no ``Dropout1d`` and no alpha dropout, and its dropout layers refuse ``p=1``.
"""

import math

import mlx.core as mx
import mlx.nn as nn

# SELU's limit at minus infinity: the value of dropped elements, before rescaling.
_SATURATION = -1.7580993408473766


def alpha_dropout(x: mx.array, p: float, mask_shape: tuple[int, ...]) -> mx.array:
    """Set elements to SELU's limit, preserving mean and variance; as ``aten::alpha_dropout``.

    Args:
        x: of any shape, floating.
        p: probability to drop an element, from 0 to 1; at 1 all of ``x`` becomes 0.
        mask_shape: broadcastable to the shape of ``x``: axes that are dropped as a whole have size
            1.
    """
    if p == 1:
        return x * 0
    scale = 1 / math.sqrt((_SATURATION**2 * p + 1) * (1 - p))
    shift = -scale * p * _SATURATION
    kept = mx.random.bernoulli(1 - p, mask_shape)
    return mx.where(kept, x, _SATURATION) * scale + shift


class _Dropout(nn.Module):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"[{type(self).__name__}] 'p' must be from 0 to 1 but got {p}.")
        self.p = p

    def _extra_repr(self) -> str:
        return f"p={self.p}"

    def _mask_shape(self, x: mx.array) -> tuple[int, ...]:
        """Return the shape of the mask: axes that are dropped as a whole have size 1."""
        return x.shape

    def __call__(self, x: mx.array) -> mx.array:
        """Drop at random in training; otherwise return ``x``."""
        if not self.training or self.p == 0:
            return x
        if self.p == 1:
            return x * 0
        kept = mx.random.bernoulli(1 - self.p, self._mask_shape(x))
        return mx.where(kept, x / (1 - self.p), 0)


class Dropout(_Dropout):
    """Zeroes single elements of an array of any shape; matches ``torch.nn.Dropout``.

    Raises:
        ValueError: ``p`` is not from 0 to 1; so do all layers here.
    """


class Dropout1d(_Dropout):
    """Zeroes whole channels of ``(N, L, C)`` or ``(L, C)``; matches ``torch.nn.Dropout1d``."""

    def _mask_shape(self, x: mx.array) -> tuple[int, ...]:
        return (*x.shape[:-2], 1, x.shape[-1])


class Dropout2d(_Dropout):
    """Zeroes whole channels of ``(N, *S, C)``; matches ``torch.nn.Dropout2d``.

    As PyTorch does, it takes three axes for ``(N, L, C)``, not for an image without a batch.
    """

    def _mask_shape(self, x: mx.array) -> tuple[int, ...]:
        return (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])


class Dropout3d(_Dropout):
    """Zeroes whole channels of ``(N, D, H, W, C)`` or ``(D, H, W, C)``.

    Matches ``torch.nn.Dropout3d``.
    """

    def _mask_shape(self, x: mx.array) -> tuple[int, ...]:
        return (*x.shape[:-4], 1, 1, 1, x.shape[-1])


class AlphaDropout(_Dropout):
    """:func:`alpha_dropout` of single elements; matches ``torch.nn.AlphaDropout``."""

    def __call__(self, x: mx.array) -> mx.array:
        """Drop at random in training; otherwise return ``x``."""
        return alpha_dropout(x, self.p, x.shape) if self.training and self.p else x


class FeatureAlphaDropout(_Dropout):
    """:func:`alpha_dropout` of whole channels of ``(N, *S, C)``.

    Matches ``torch.nn.FeatureAlphaDropout``.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """Drop at random in training; otherwise return ``x``."""
        shape = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
        return alpha_dropout(x, self.p, shape) if self.training and self.p else x
