"""Find NaN and infinity in weights, whatever dtype their bits stand for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlxport.converter.plan.tensor import Tensor

# dtype -> the pattern from which on, sign aside, all are infinite or NaN. As integers they are the
# largest of either sign, which is faster to tell than by floating-point classes.
_LIMITS: dict[str, int] = {
    "F16": 0x7C00,
    "BF16": 0x7F80,
    "F32": 0x7F800000,
    "F64": 0x7FF << 52,
    "F8_E4M3": 0x7F,
    "F8_E5M2": 0x7C,
}
# dtype -> its one pattern that is no number.
_NAN: dict[str, int] = {"F8_E4M3FNUZ": 0x80, "F8_E5M2FNUZ": 0x80, "F8_E8M0": 0xFF}


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity."""
    bits: Any = tensor.bits
    if not bits.size:
        return True
    if tensor.dtype == "C64":
        return all(is_finite(Tensor(part, "F32")) for part in (bits.real, bits.imag))
    if tensor.dtype in _NAN:
        return not bool((bits == _NAN[tensor.dtype]).any())
    if tensor.dtype not in _LIMITS:
        return True
    limit, width = _LIMITS[tensor.dtype], bits.itemsize
    sign = 1 << (8 * width - 1)
    positive, negative = (bits.view(f"{kind}{width}").max() for kind in "iu")
    return int(positive) < limit and int(negative) < sign | limit


def non_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity; reads every value."""
    return [name for name, tensor in tensors if not is_finite(tensor)]
