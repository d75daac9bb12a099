"""Find NaN and infinity in weights, whatever dtype their bits stand for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlxport.converter.plan.tensor import Tensor, infinity_pattern, is_float


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity."""
    bits: Any = tensor.bits
    if not bits.size:
        return True
    if tensor.dtype == "C64":
        return all(is_finite(Tensor(part, "F32")) for part in (bits.real, bits.imag))
    if not is_float(tensor.dtype):
        return True
    # From this pattern on, sign aside, all are infinite or NaN. As integers they are the largest
    # of either sign, which is faster to tell than by floating-point classes.
    limit, width = infinity_pattern(tensor.dtype), bits.itemsize
    sign = 1 << (8 * width - 1)
    if limit >= sign:  # a format whose one NaN has the sign's bit
        return not bool((bits == limit).any())
    positive, negative = (bits.view(f"{kind}{width}").max() for kind in "iu")
    return int(positive) < limit and int(negative) < sign | limit


def non_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity; reads every value."""
    return [name for name, tensor in tensors if not is_finite(tensor)]
