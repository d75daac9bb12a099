"""Local response normalisation over neighbouring channels, which MLX lacks.

PyTorch's ``LocalResponseNorm`` and ``CrossMapLRN2d`` differ: in the windows of even sizes, and the
second keeps channel 0 in the sum of every window after it.
"""

import mlx.core as mx
from mlx import nn

from mlxport.layers.norm.statistics import upcast


def local_response_norm(
    x: mx.array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> mx.array:
    """Divide by a power of the mean square over ``size`` neighbouring channels.

    Matches ``torch.nn.functional.local_response_norm``: channel ``c`` sees ``c - size // 2`` to
    ``c + (size - 1) // 2``; those beyond the ends count as zeros.

    Args:
        x: ``(N, *S, C)``, of 3 dimensions or more.
        size: The number of channels of a window.
        alpha: Factor of the mean square.
        beta: The power.
        k: Added before the power.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        ValueError: ``x`` has fewer than 3 dimensions.
    """
    if x.ndim < 3:
        raise ValueError(
            f"[local_response_norm] input must have 3 dimensions or more but got shape {x.shape}."
        )
    squares = mx.square(upcast(x))
    total = _window_sum(squares, size // 2, (size - 1) // 2)
    return _divided(x, total * (alpha / size) + k, beta)


def cross_map_lrn(
    x: mx.array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> mx.array:
    """Divide by a power of the sum of squares over neighbouring channels, over ``size``.

    Matches the forward pass of ``torch.nn.CrossMapLRN2d``: with ``reach = (size - 1) // 2``,
    channel ``c`` sees ``c - reach`` to ``c + reach``, and channel 0 besides. PyTorch's backward
    pass is not the derivative of that; here it is.

    Args:
        x: ``(N, H, W, C)``.
        size: What the sum is divided by.
        alpha: Factor of the quotient.
        beta: The power.
        k: Added before the power.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        ValueError: ``x`` does not have 4 dimensions.
    """
    if x.ndim != 4:
        raise ValueError(f"[cross_map_lrn] input must have 4 dimensions but got shape {x.shape}.")
    reach = (size - 1) // 2
    squares = mx.square(upcast(x))
    total = _window_sum(squares, reach, reach)
    passed = mx.arange(x.shape[-1]) > reach
    total = total + mx.where(passed, squares[..., :1], 0)
    return _divided(x, total * (alpha / size) + k, beta)


def _window_sum(x: mx.array, before: int, after: int) -> mx.array:
    channels = x.shape[-1]
    padded = mx.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])
    windows = (padded[..., i : i + channels] for i in range(before + after + 1))
    return sum(windows, start=mx.array(0, x.dtype))


def _divided(x: mx.array, scale: mx.array, beta: float) -> mx.array:
    return (upcast(x) / scale**beta).astype(x.dtype)


class _ResponseNorm(nn.Module):
    """Base of both layers: their arguments."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def _extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class LocalResponseNorm(_ResponseNorm):
    """Applies local response normalisation, as ``torch.nn.LocalResponseNorm`` does.

    Shape:
        - Input: ``(N, *S, C)``, of 3 dimensions or more
        - Output: as the input, of its dtype

    Args:
        size (int): The number of channels of a window.
        alpha (float, optional): Factor of the mean square. Default: ``1e-4``.
        beta (float, optional): The power. Default: ``0.75``.
        k (float, optional): Added before the power. Default: ``1.0``.

    Raises:
        ValueError: From the call, as :func:`local_response_norm`.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise ``(N, *S, C)``."""
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)


class CrossMapLRN2d(_ResponseNorm):
    """Applies normalisation across feature maps, as ``torch.nn.CrossMapLRN2d`` does.

    Takes the arguments of :class:`LocalResponseNorm`.

    Shape:
        - Input: ``(N, H, W, C)``
        - Output: as the input, of its dtype

    Raises:
        ValueError: From the call, as :func:`cross_map_lrn`.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise ``(N, H, W, C)``."""
        return cross_map_lrn(x, self.size, self.alpha, self.beta, self.k)
