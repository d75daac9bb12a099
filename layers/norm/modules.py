"""Group, layer and RMS normalisation as layers, with PyTorch's parameters under its names.

They call :mod:`mlxport.layers.norm.functions`, which says what the layers of ``mlx.nn`` lack.
"""

from collections.abc import Sequence

import mlx.core as mx
from mlx import nn

from mlxport.layers.norm.functions import group_norm, layer_norm, rms_norm


class AffineNorm(nn.Module):
    """Base of the norms: an optional weight of ones and an optional bias of zeros."""

    def __init__(self, shape: tuple[int, ...], weight: bool, bias: bool):
        super().__init__()
        if weight:
            self.weight = mx.ones(shape)
        if weight and bias:
            self.bias = mx.zeros(shape)

    def _affine(self) -> dict[str, mx.array | None]:
        return {name: self.get(name) for name in ("weight", "bias")}

    def _extra_repr(self) -> str:
        return f"affine={'weight' in self}, bias={'bias' in self}"


class GroupNorm(AffineNorm):
    """Applies group normalisation, as ``torch.nn.GroupNorm`` does: groups of adjacent channels.

    Shape:
        - Input: ``(N, *S, dims)`` or ``(N, dims)``
        - Output: as the input, of its dtype

    Args:
        num_groups (int): The number of groups.
        dims (int): The number of channels.
        eps (float, optional): Added to the variance. Default: ``1e-5``.
        affine (bool, optional): Whether to scale and shift. Default: ``True``.
        bias (bool, optional): Whether to shift, where affine. Default: ``True``.

    Raises:
        ValueError: ``num_groups`` does not divide ``dims``; from the call, as
            :func:`mlxport.layers.norm.functions.group_norm`.
    """

    def __init__(
        self,
        num_groups: int,
        dims: int,
        eps: float = 1e-5,
        affine: bool = True,
        bias: bool = True,
    ):
        super().__init__((dims,), affine, bias)
        if num_groups < 1 or dims % num_groups:
            raise ValueError(
                f"[GroupNorm] 'num_groups' must divide the {dims} channels but got {num_groups}."
            )
        self.eps = eps
        self.num_groups = num_groups
        self.dims = dims

    def _extra_repr(self) -> str:
        return f"{self.num_groups}, {self.dims}, eps={self.eps}, {super()._extra_repr()}"

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise ``(N, *S, dims)``."""
        return group_norm(x, self.num_groups, **self._affine(), eps=self.eps)


class LayerNorm(AffineNorm):
    """Applies layer normalisation over one or several last axes, as ``torch.nn.LayerNorm`` does.

    Shape:
        - Input: ``(*, *normalized_shape)``
        - Output: as the input, of its dtype

    Args:
        normalized_shape (int or tuple): The sizes of the axes normalised over.
        eps (float, optional): Added to the variance. Default: ``1e-5``.
        affine (bool, optional): Whether to scale and shift. Default: ``True``.
        bias (bool, optional): Whether to shift, where affine. Default: ``True``.

    Raises:
        ValueError: From the call: the input does not end in ``normalized_shape``.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        affine: bool = True,
        bias: bool = True,
    ):
        shape = _shape(normalized_shape)
        super().__init__(shape, affine, bias)
        self.eps = eps
        self.normalized_shape = shape

    def _extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, {super()._extra_repr()}"

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise ``(*, *normalized_shape)``."""
        return layer_norm(x, self.normalized_shape, **self._affine(), eps=self.eps)


class RMSNorm(AffineNorm):
    """Applies RMS normalisation over one or several last axes, as ``torch.nn.RMSNorm`` does.

    Shape:
        - Input: ``(*, *normalized_shape)``
        - Output: as the input, of its dtype

    Args:
        normalized_shape (int or tuple): The sizes of the axes normalised over.
        eps (float, optional): Added to the mean square; None stands for float32's machine
            epsilon. Default: ``None``.
        affine (bool, optional): Whether to scale. Default: ``True``.

    Raises:
        ValueError: From the call: the input does not end in ``normalized_shape``.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        affine: bool = True,
    ):
        shape = _shape(normalized_shape)
        super().__init__(shape, affine, bias=False)
        self.eps = eps
        self.normalized_shape = shape

    def _extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, affine={'weight' in self}"

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise ``(*, *normalized_shape)``."""
        return rms_norm(x, self.normalized_shape, self.get("weight"), self.eps)


def _shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(normalized_shape, Sequence):
        return tuple(normalized_shape)
    return (normalized_shape,)
