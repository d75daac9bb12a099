"""BatchNorm in evaluation, folded into the layer before it: two weights become one.

``gamma · (W·x + b − mean) / sqrt(var + eps) + beta``: every output channel of the
layer is scaled by ``gamma / sqrt(var + eps)`` and shifted. In float64. Needs numpy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def folded_weight(weight: Array, scale: Array, groups: int | None) -> Array:
    """Return a layer's weight with every output channel scaled.

    Args:
        weight: ``(out, …)``, or ``(in, out/groups, *k)`` of a transposed convolution.
        scale: ``(out,)``.
        groups: of a transposed convolution; None for all other layers.
    """
    if groups is None:
        return np.asarray(weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
    inputs, outputs, *kernel = weight.shape
    split = weight.reshape(groups, inputs // groups, outputs, *kernel)
    factors = scale.reshape(groups, 1, outputs, *[1] * len(kernel))
    return np.asarray((split * factors).reshape(weight.shape))


def scale_of(variance: Array, gamma: Array | None, eps: float) -> Array:
    """Return what every channel is multiplied by, ``(C,)``."""
    with np.errstate(divide="ignore", invalid="ignore"):  # infinite in PyTorch, too
        scale: Any = 1 / np.sqrt(variance + eps)
    return np.asarray(scale if gamma is None else gamma * scale)
