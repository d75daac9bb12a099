"""Find NaN and infinity in weights, whatever dtype their bits stand for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mlxport.converter.tensor import Tensor

# dtype -> (mask, pattern): not finite where the masked bits are the pattern. The 8-bit formats
# without infinity have one NaN pattern, or one for each sign.
_PATTERNS: dict[str, tuple[int, int]] = {
    "BF16": (0x7F80, 0x7F80),
    "F8_E4M3": (0x7F, 0x7F),
    "F8_E5M2": (0x7C, 0x7C),
    "F8_E4M3FNUZ": (0xFF, 0x80),
    "F8_E5M2FNUZ": (0xFF, 0x80),
    "F8_E8M0": (0xFF, 0xFF),
}


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity."""
    bits: Any = tensor.bits
    if tensor.dtype in _PATTERNS:
        mask, pattern = _PATTERNS[tensor.dtype]
        return not bool(((bits & mask) == pattern).any())
    return bits.dtype.kind not in "fc" or bool(np.isfinite(bits).all())


def non_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity; reads every value."""
    return [name for name, tensor in tensors if not is_finite(tensor)]
