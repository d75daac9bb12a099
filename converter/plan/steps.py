"""The vocabulary of a weight plan: each step a piece of data, with its inverse.

Every permutation between PyTorch's and MLX's layouts is written down here and nowhere else.
A step maps a tuple of tensors to a tuple of tensors; rules and handlers only choose steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.fold_steps import (
    AddScaled,
    FoldBatchNormBias,
    FoldBatchNormWeight,
    FoldOrthogonal,
    FoldSpectralNorm,
    FoldWeightNorm,
    MergeLowRank,
)
from mlxport.converter.plan.json_data import Count
from mlxport.converter.plan.quantize_step import Quantize
from mlxport.converter.plan.step import BaseStep
from mlxport.converter.plan.tensor import DtypeName, Tensors, cast, holds


def axes_to_last(ndim: int, axis: int) -> tuple[int, ...]:
    """Return the permutation of ``ndim`` axes that moves ``axis`` to the end."""
    return (*(i for i in range(ndim) if i != axis), axis)


class Permute(BaseStep, frozen=True):
    """Reorder the axes of every tensor: axis ``axes[i]`` of the source becomes axis ``i``."""

    axes: tuple[int, ...]

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        return tuple(t.with_bits(t.bits.transpose(self.axes)) for t in tensors)

    def invert(self, tensors: Tensors) -> Tensors:
        """Map MLX's tensors back towards PyTorch's."""
        inverse = tuple(int(i) for i in np.argsort(self.axes))
        return tuple(t.with_bits(t.bits.transpose(inverse)) for t in tensors)


class Reshape(BaseStep, frozen=True):
    """Give every tensor another shape over the same elements in the same (logical) order."""

    source: tuple[int, ...]
    target: tuple[int, ...]

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        return tuple(t.with_bits(t.bits.reshape(self.target)) for t in tensors)

    def invert(self, tensors: Tensors) -> Tensors:
        """Map MLX's tensors back towards PyTorch's."""
        return tuple(t.with_bits(t.bits.reshape(self.source)) for t in tensors)


class TransposedConvWeight(BaseStep, frozen=True):
    """``(in, out/groups, *k)`` of ``torch.nn.ConvTransposeNd`` to MLX's ``(out, *k, in/groups)``.

    Group ``g`` of PyTorch's weight holds input channels ``g·in/groups …`` on axis 0 and, on axis 1,
    the output channels of that group counted from zero; MLX keeps all output channels on axis 0.
    """

    groups: int = 1

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        return tuple(t.with_bits(self._to_mlx(t.bits)) for t in tensors)

    def invert(self, tensors: Tensors) -> Tensors:
        """Map MLX's tensors back towards PyTorch's."""
        return tuple(t.with_bits(self._to_torch(t.bits)) for t in tensors)

    def _to_mlx(self, weight: Any) -> Any:
        if self.groups == 1:
            return np.moveaxis(weight, 0, -1)
        inputs, outputs, *kernel = weight.shape
        split = weight.reshape(self.groups, inputs // self.groups, outputs, *kernel)
        return np.moveaxis(split, 1, -1).reshape(self.groups * outputs, *kernel, -1)

    def _to_torch(self, weight: Any) -> Any:
        if self.groups == 1:
            return np.moveaxis(weight, -1, 0)
        outputs, *kernel, inputs = weight.shape
        split = weight.reshape(self.groups, outputs // self.groups, *kernel, inputs)
        return np.moveaxis(split, -1, 1).reshape(self.groups * inputs, -1, *kernel)


class Concatenate(BaseStep, frozen=True):
    """Join tensors along an axis, in their order, as ``torch.cat`` does.

    Attributes:
        axis: of PyTorch's layout.
        sizes: of the tensors along it.
    """

    axis: int
    sizes: tuple[Count, ...]

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        return _concatenated(tensors, self.axis, self.sizes)

    def invert(self, tensors: Tensors) -> Tensors:
        """Map MLX's tensors back towards PyTorch's."""
        return _split(tensors, self.axis, self.sizes)


class Split(BaseStep, frozen=True):
    """Split a tensor along an axis, as ``torch.split`` does: the inverse of `Concatenate`.

    Attributes:
        axis: of PyTorch's layout.
        sizes: of the parts along it.
    """

    axis: int
    sizes: tuple[Count, ...]

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        return _split(tensors, self.axis, self.sizes)

    def invert(self, tensors: Tensors) -> Tensors:
        """Map MLX's tensors back towards PyTorch's."""
        return _concatenated(tensors, self.axis, self.sizes)


def _concatenated(tensors: Tensors, axis: int, sizes: tuple[int, ...]) -> Tensors:
    found = tuple(tensor.shape[axis] for tensor in tensors)
    if found != sizes:
        raise ValueError(f"expected sizes {sizes} along axis {axis}, got {found}")
    if len({tensor.dtype for tensor in tensors}) > 1:
        raise ValueError(f"dtypes differ: {', '.join(tensor.dtype for tensor in tensors)}")
    first = tensors[0]
    if all(_is_zero(tensor.bits) for tensor in tensors):  # outlines: none needs memory
        others = {tensor.shape[:axis] + tensor.shape[axis + 1 :] for tensor in tensors}
        if len(others) == 1:
            shape = (*first.shape[:axis], sum(sizes), *first.shape[axis + 1 :])
            zero = np.zeros((), first.bits.dtype)
            return (first.with_bits(np.broadcast_to(zero, shape)),)
    return (first.with_bits(np.concatenate([tensor.bits for tensor in tensors], axis)),)


def _is_zero(bits: Any) -> bool:
    """Tell whether an array is one zero, repeated without memory of its own."""
    return bits.size > 0 and not any(bits.strides) and not any(bits.flat[0].tobytes())


def _split(tensors: Tensors, axis: int, sizes: tuple[int, ...]) -> Tensors:
    (tensor,) = tensors
    if tensor.shape[axis] != sum(sizes):
        raise ValueError(f"expected {sum(sizes)} along axis {axis}, got {tensor.shape[axis]}")
    ends = np.cumsum(sizes[:-1], dtype=np.int64)
    return tuple(tensor.with_bits(bits) for bits in np.split(tensor.bits, ends, axis))


class Cast(BaseStep, frozen=True):
    """Give each tensor another dtype, rounding as ``torch.Tensor.to`` does.

    Backwards, values that were rounded stay so.
    """

    source: tuple[DtypeName, ...]
    target: tuple[DtypeName, ...]

    @property
    def rounds(self) -> bool:
        """Whether some value of a source dtype is none of its target dtype."""
        return not all(map(holds, self.target, self.source))

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        return self._cast(tensors, self.source, self.target)

    def invert(self, tensors: Tensors) -> Tensors:
        """Map MLX's tensors back towards PyTorch's."""
        return self._cast(tensors, self.target, self.source)

    def _cast(self, tensors: Tensors, before: tuple[str, ...], after: tuple[str, ...]) -> Tensors:
        found = tuple(tensor.dtype for tensor in tensors)
        if found != before:
            raise ConversionError(f"plan step 'cast' expected {before}, got {found}")
        return tuple(map(cast, tensors, after))


Step: TypeAlias = (
    Permute
    | Reshape
    | TransposedConvWeight
    | Concatenate
    | Split
    | Cast
    | FoldWeightNorm
    | FoldSpectralNorm
    | FoldOrthogonal
    | FoldBatchNormWeight
    | FoldBatchNormBias
    | MergeLowRank
    | AddScaled
    | Quantize
)


def rearranges(step: Step) -> bool:
    """Tell whether a step only moves values: then a gradient goes the way of its tensor."""
    return isinstance(step, (Permute, Reshape, TransposedConvWeight))


def folds(step: Step) -> bool:
    """Tell whether a step makes one tensor of several, which it cannot give back."""
    return isinstance(
        step,
        (
            FoldWeightNorm,
            FoldSpectralNorm,
            FoldOrthogonal,
            FoldBatchNormWeight,
            FoldBatchNormBias,
            MergeLowRank,
            AddScaled,
        ),
    )


def conv_weight(rank: int) -> tuple[Step, ...]:
    """``(out, in/groups, *k)`` of ``torch.nn.ConvNd`` to MLX's ``(out, *k, in/groups)``."""
    return (Permute(axes_to_last(rank + 2, 1)),)


def conv_transpose_weight(groups: int = 1) -> tuple[Step, ...]:
    """``(in, out/groups, *k)`` of ``torch.nn.ConvTransposeNd`` to ``(out, *k, in/groups)``."""
    return (TransposedConvWeight(groups),)


def bilinear_weight() -> tuple[Step, ...]:
    """``(out, in1, in2)`` of ``torch.nn.Bilinear`` to MLX's ``(out, in2, in1)``."""
    return (Permute((0, 2, 1)),)


def flattened_columns(rows: int, sizes: Sequence[int], order: Sequence[int]) -> tuple[Step, ...]:
    """``(out, in)`` of ``torch.nn.Linear`` to the columns of an input flattened in another order.

    Args:
        rows: number of outputs.
        sizes: of the axes that PyTorch flattens, in its sequence (``C, *S``).
        order: which of them comes first, second … where MLX flattens them (``*S, C``).
    """
    moved = tuple(sizes[axis] for axis in order)
    columns = prod(sizes)
    return (
        Reshape((rows, columns), (rows, *sizes)),
        Permute((0, *(axis + 1 for axis in order))),
        Reshape((rows, *moved), (rows, columns)),
    )
