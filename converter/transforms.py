"""The vocabulary of a weight plan: each step a piece of data, with its inverse.

Every permutation between PyTorch's and MLX's layouts is written down here and nowhere else.
A step maps a tuple of tensors to a tuple of tensors; rules and handlers only choose steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from mlxport.converter.batch_norm import folded_weight, scale_of
from mlxport.converter.errors import ConversionError
from mlxport.converter.orthogonal import orthogonal
from mlxport.converter.quantization import Quantize
from mlxport.converter.tensor import Tensor, cast, from_float64, holds, to_float64

Tensors = tuple[Tensor, ...]


class Step(Protocol):
    """One operation on the tensors of a plan's entry, reversible but for the folds."""

    kind: ClassVar[str]

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        ...

    def invert(self, tensors: Tensors) -> Tensors:
        """Map MLX's tensors back towards PyTorch's."""
        ...


def axes_to_last(ndim: int, axis: int) -> tuple[int, ...]:
    """Return the permutation of ``ndim`` axes that moves ``axis`` to the end."""
    return (*(i for i in range(ndim) if i != axis), axis)


@dataclass(frozen=True)
class Permute:
    """Reorder the axes of every tensor: axis ``axes[i]`` of the source becomes axis ``i``."""

    axes: tuple[int, ...]
    kind: ClassVar[str] = "permute"

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        return tuple(t.with_bits(t.bits.transpose(self.axes)) for t in tensors)

    def invert(self, tensors: Tensors) -> Tensors:
        """Map MLX's tensors back towards PyTorch's."""
        inverse = tuple(int(i) for i in np.argsort(self.axes))
        return tuple(t.with_bits(t.bits.transpose(inverse)) for t in tensors)


@dataclass(frozen=True)
class Reshape:
    """Give every tensor another shape over the same elements in the same (logical) order."""

    source: tuple[int, ...]
    target: tuple[int, ...]
    kind: ClassVar[str] = "reshape"

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        return tuple(t.with_bits(t.bits.reshape(self.target)) for t in tensors)

    def invert(self, tensors: Tensors) -> Tensors:
        """Map MLX's tensors back towards PyTorch's."""
        return tuple(t.with_bits(t.bits.reshape(self.source)) for t in tensors)


@dataclass(frozen=True)
class TransposedConvWeight:
    """``(in, out/groups, *k)`` of ``torch.nn.ConvTransposeNd`` to MLX's ``(out, *k, in/groups)``.

    Group ``g`` of PyTorch's weight holds input channels ``g·in/groups …`` on axis 0 and, on axis 1,
    the output channels of that group counted from zero; MLX keeps all output channels on axis 0.
    """

    groups: int = 1
    kind: ClassVar[str] = "transposed_conv_weight"

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


@dataclass(frozen=True)
class Cast:
    """Give each tensor another dtype, rounding as ``torch.Tensor.to`` does.

    Backwards, values that were rounded stay so.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    kind: ClassVar[str] = "cast"

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


@dataclass(frozen=True)
class FoldWeightNorm:
    """``(g, v)`` to the weight ``g · v / ‖v‖``, in float64, rounded to the dtype of ``v``.

    Matches ``torch._weight_norm``: the norm is over all axes of ``v`` but ``dim``, over all of them
    where that is -1. ``g`` has size 1 along the axes of the norm, and no axes where these are all.
    """

    dim: int = 0
    kind: ClassVar[str] = "fold_weight_norm"

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        magnitude, direction = _values(self.kind, tensors, 2)
        every = range(direction.ndim)
        axes = tuple(every if self.dim == -1 else (i for i in every if i != every[self.dim]))
        norm = np.sqrt(np.sum(np.square(direction), axis=axes, keepdims=True))
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN in PyTorch, too
            return (from_float64(direction * (magnitude / norm), tensors[1].dtype),)

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: only their product is left of the two."""
        raise _lost("magnitude and direction were folded into one weight, which does not tell them")


@dataclass(frozen=True)
class FoldSpectralNorm:
    """``(weight, u, v)`` to ``weight / uᵀ·W·v``, in float64, rounded to the weight's dtype.

    ``W`` has the weight's axis ``dim`` as rows and all others as columns. Matches
    ``torch.nn.utils.parametrizations.spectral_norm`` in evaluation, where the vectors stay.
    """

    dim: int = 0
    kind: ClassVar[str] = "fold_spectral_norm"

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        weight, left, right = _values(self.kind, tensors, 3)
        rows = np.moveaxis(weight, self.dim, 0).reshape(weight.shape[self.dim], -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (from_float64(weight / (left @ rows @ right), tensors[0].dtype),)

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: the scale and both vectors are lost."""
        raise _lost("the weight was divided by its spectral norm, which is not kept")


@dataclass(frozen=True)
class FoldOrthogonal:
    """``(parameters,)`` or ``(parameters, base)`` to the matrices with orthonormal rows or columns.

    Matches ``torch.nn.utils.parametrizations.orthogonal``; in float64, rounded to the parameters'
    dtype. ``method`` is its ``orthogonal_map``.
    """

    method: str
    based: bool = True
    kind: ClassVar[str] = "fold_orthogonal"

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        parameters, *base = _values(self.kind, tensors, 2 if self.based else 1)
        made = orthogonal(self.method, parameters, base[0] if base else None)
        return (from_float64(made, tensors[0].dtype),)

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: many parameters make one matrix."""
        raise _lost("an orthogonal weight does not tell the parameters it was made from")


@dataclass(frozen=True)
class FoldBatchNormWeight:
    """``(weight, running_var)`` or ``(weight, running_var, gamma)`` to the weight of both layers.

    Of a convolution or linear layer with the BatchNorm behind it, in evaluation: every output
    channel times ``gamma / sqrt(running_var + eps)``, in float64, rounded to the weight's dtype.
    ``groups`` is a transposed convolution's, whose output channels lie on axis 1; None otherwise.
    """

    eps: float
    affine: bool = True
    groups: int | None = None
    kind: ClassVar[str] = "fold_batch_norm_weight"

    def apply(self, tensors: Tensors) -> Tensors:
        """Map PyTorch's tensors towards MLX's."""
        weight, variance, *gamma = _values(self.kind, tensors, 3 if self.affine else 2)
        scale = scale_of(variance, gamma[0] if gamma else None, self.eps)
        return (from_float64(folded_weight(weight, scale, self.groups), tensors[0].dtype),)

    def invert(self, tensors: Tensors) -> Tensors:
        """Refuse: only the product of weight and scale is left."""
        raise _lost("BatchNorm was folded into the layer before it, which does not tell the two")


@dataclass(frozen=True)
class FoldBatchNormBias:
    """``(running_mean, running_var[, gamma, beta][, bias])`` to the bias of both layers.

    ``(bias − running_mean) · gamma / sqrt(running_var + eps) + beta`` in float64, rounded to
    ``dtype``, the layer's; see `FoldBatchNormWeight`.
    """

    eps: float
    dtype: str
    affine: bool = True
    biased: bool = True
    kind: ClassVar[str] = "fold_batch_norm_bias"

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
        raise _lost("BatchNorm was folded into the layer before it, which does not tell the two")


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


STEPS: dict[str, type[Any]] = {
    step.kind: step
    for step in (
        Permute,
        Reshape,
        TransposedConvWeight,
        Cast,
        FoldWeightNorm,
        FoldSpectralNorm,
        FoldOrthogonal,
        FoldBatchNormWeight,
        FoldBatchNormBias,
        Quantize,
    )
}


def rearranges(step: Step) -> bool:
    """Tell whether a step only moves values: then a gradient goes the way of its tensor."""
    return isinstance(step, (Permute, Reshape, TransposedConvWeight))


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


def step_to_json(step: Step) -> dict[str, Any]:
    """Return a step as JSON data: its kind and its fields."""
    values = {f.name: getattr(step, f.name) for f in fields(step)}  # type: ignore[arg-type]
    return {"kind": step.kind, **values}


def step_from_json(data: dict[str, Any]) -> Step:
    """Build a step from JSON data.

    Raises:
        ConversionError: the kind is unknown or its fields do not fit.
    """
    values = dict(data)
    kind = values.pop("kind", None)
    if kind not in STEPS:
        raise ConversionError(
            f"plan step {kind!r} is unknown; known are {', '.join(sorted(STEPS))}. "
            "The plan may come from a newer mlxport."
        )
    try:
        step: Step = STEPS[kind](
            **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        )
    except TypeError as error:
        raise ConversionError(f"plan step {kind!r} has wrong fields {sorted(values)}") from error
    return step
