"""The steps of a plan that compute a weight of several tensors; none has an inverse."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.batch_norm import folded_weight, scale_of
from mlxport.converter.plan.low_rank import WeightAxes, with_low_rank
from mlxport.converter.plan.orthogonal import orthogonal
from mlxport.converter.plan.step import BaseStep
from mlxport.converter.plan.tensor import (
    DtypeName,
    Tensor,
    Tensors,
    TensorSpec,
    cast,
    from_float64,
    to_float64,
)


class FoldWeightNorm(BaseStep, frozen=True):
    """``(g, v)`` to the weight ``g · v / ‖v‖``, in float64, rounded to the dtype of ``v``.

    Matches ``torch._weight_norm``: the norm is over all axes of ``v`` but ``dim``, over all of them
    where that is -1. ``g`` has size 1 along the axes of the norm, and no axes where these are all.
    """

    dim: int = 0

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        magnitude, direction = _values(self.kind, tensors, 2)
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN in PyTorch, too
            factor = magnitude / self._norm(direction)
            return (from_float64(direction * factor, tensors[1].dtype),)

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: only their product is left of the two."""
        raise _lost("magnitude and direction were folded into one weight")

    def equivalent(self, weight: Tensor, magnitude: TensorSpec) -> Tensors:
        """Return a magnitude and a direction that fold into a weight, but for a rounding.

        The direction is the weight itself, the magnitude its norm, as ``weight_norm`` begins with.

        Args:
            weight: in PyTorch's order of axes.
            magnitude: the dtype and shape of ``g``.
        """
        norm = self._norm(to_float64(weight)).reshape(magnitude.shape)
        return from_float64(norm, magnitude.dtype), weight

    def _norm(self, direction: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        every = range(direction.ndim)
        axes = tuple(every if self.dim == -1 else (i for i in every if i != every[self.dim]))
        norm: npt.NDArray[np.float64] = np.sqrt(
            np.sum(np.square(direction), axis=axes, keepdims=True)
        )
        return norm


class FoldSpectralNorm(BaseStep, frozen=True):
    """``(weight, u, v)`` to ``weight / uᵀ·W·v``, in float64, rounded to the weight's dtype.

    ``W`` has the weight's axis ``dim`` as rows and all others as columns. Matches
    ``torch.nn.utils.parametrizations.spectral_norm`` in evaluation, where the vectors stay.
    """

    dim: int = 0

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        weight, left, right = _values(self.kind, tensors, 3)
        rows = np.moveaxis(weight, self.dim, 0).reshape(weight.shape[self.dim], -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (from_float64(weight / (left @ rows @ right), tensors[0].dtype),)

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: the scale and both vectors are lost."""
        raise _lost("the weight was divided by its spectral norm, which is not kept")


class FoldOrthogonal(BaseStep, frozen=True):
    """``(parameters,)`` or ``(parameters, base)`` to the matrices with orthonormal rows or columns.

    Matches ``torch.nn.utils.parametrizations.orthogonal``; in float64, rounded to the parameters'
    dtype. ``method`` is its ``orthogonal_map``.
    """

    method: str
    based: bool = True

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        parameters, *base = _values(self.kind, tensors, 2 if self.based else 1)
        matrices = orthogonal(self.method, parameters, base[0] if base else None)
        return (from_float64(matrices, tensors[0].dtype),)

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: many parameters make one matrix."""
        raise _lost("an orthogonal weight does not determine its parameters")


class FoldBatchNormWeight(BaseStep, frozen=True):
    """``(weight, running_var)`` or ``(weight, running_var, gamma)`` to the weight of both layers.

    Of a convolution or linear layer with the BatchNorm behind it, in evaluation: every output
    channel times ``gamma / sqrt(running_var + eps)``, in float64, rounded to the weight's dtype.
    ``groups`` is a transposed convolution's, whose output channels lie on axis 1; None otherwise.
    """

    eps: float
    affine: bool = True
    groups: int | None = None

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        weight, variance, *gamma = _values(self.kind, tensors, 3 if self.affine else 2)
        scale = scale_of(variance, gamma[0] if gamma else None, self.eps)
        return (from_float64(folded_weight(weight, scale, self.groups), tensors[0].dtype),)

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: only the product of weight and scale is left."""
        raise _lost("BatchNorm was folded into the layer before it")


class FoldBatchNormBias(BaseStep, frozen=True):
    """``(running_mean, running_var[, gamma, beta][, bias])`` to the bias of both layers.

    ``(bias − running_mean) · gamma / sqrt(running_var + eps) + beta`` in float64, rounded to
    ``dtype``, the layer's; see `FoldBatchNormWeight`.
    """

    eps: float
    dtype: DtypeName
    affine: bool = True
    biased: bool = True

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        count = 2 + 2 * self.affine + self.biased
        mean, variance, *rest = _values(self.kind, tensors, count)
        gamma, beta = rest[:2] if self.affine else (None, np.zeros_like(mean))
        bias = rest[-1] if self.biased else np.zeros_like(mean)
        with np.errstate(invalid="ignore"):
            shifted = (bias - mean) * scale_of(variance, gamma, self.eps) + beta
        return (from_float64(np.asarray(shifted), self.dtype),)

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: one sum is left of four vectors."""
        raise _lost("BatchNorm was folded into the layer before it")


class MergeLowRank(BaseStep, frozen=True):
    """``(weight, lora_A, lora_B, …)`` to ``weight + scale · lora_B · lora_A`` and what follows.

    Of a LoRA adapter, as PEFT's ``merge_and_unload`` adds it; in float64, rounded to the weight's
    dtype. ``axes`` says how the weight lies.
    """

    scale: float
    axes: WeightAxes

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        return (self._sum(tensors[:3], self.scale), *tensors[3:])

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: only the sum is left of base and adapter."""
        raise _lost("the adapter was merged into the weight")

    def without(self, tensors: Tensors, dtype: DtypeName) -> Tensor:
        """Return the base that this adapter makes a weight of, but for a rounding.

        Args:
            tensors: the merged weight in PyTorch's order of axes, ``lora_A``, ``lora_B``.
            dtype: of the base.
        """
        return cast(self._sum(tensors, -self.scale), dtype)

    def _sum(self, tensors: Tensors, scale: float) -> Tensor:
        weight = tensors[0]
        if weight.bits.size > 1 and not any(weight.bits.strides):
            return weight  # an outline, of which only shape and dtype are asked for
        values, down, up = _values(self.kind, tensors, 3)
        merged = np.empty(weight.shape, weight.bits.dtype)
        for part, rows in with_low_rank(values, down, up, scale, self.axes):
            merged[part] = from_float64(rows, weight.dtype).bits
        return weight.with_bits(merged)


class AddScaled(BaseStep, frozen=True):
    """``(bias, addend, …)`` to ``bias + scale · addend`` and what follows, as `MergeLowRank`."""

    scale: float

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        bias, addend = _values(self.kind, tensors[:2], 2)
        return (from_float64(bias + self.scale * addend, tensors[0].dtype), *tensors[2:])

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: only the sum is left of base and adapter."""
        raise _lost("the adapter was merged into the bias")

    def without(self, tensors: Tensors, dtype: DtypeName) -> Tensor:
        """Return the base that this adapter makes a bias of, but for a rounding.

        Args:
            tensors: the merged bias and the addend.
            dtype: of the base.
        """
        values, added = _values(self.kind, tensors, 2)
        return from_float64(values - self.scale * added, dtype)


def _values(kind: str, tensors: Tensors, count: int) -> list[npt.NDArray[np.float64]]:
    if len(tensors) != count:
        raise ConversionError(
            f"plan step {kind!r} takes {count} tensors, got {len(tensors)}; the plan is damaged"
        )
    return [to_float64(tensor) for tensor in tensors]


def _lost(reason: str) -> ConversionError:
    return ConversionError(
        f"{reason}; take PyTorch's tensors from the checkpoint that was converted"
    )
