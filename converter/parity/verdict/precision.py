"""Precision of floating-point formats: how much one rounding may lose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Precision(NamedTuple):
    """A binary floating-point format.

    Attributes:
        digits: binary digits of the significand, the hidden one included.
        lowest: exponent of the smallest normal number.
    """

    digits: int
    lowest: int

    @property
    def roundoff(self) -> float:
        """Largest relative error of one rounding in the normal range."""
        return float(2.0**-self.digits)

    @property
    def tiniest(self) -> float:
        """Smallest positive number: the distance between neighbours next to zero."""
        return float(2.0 ** (self.lowest - self.digits + 1))

    def spacing(self, magnitude: float) -> float:
        """Distance between neighbours at a magnitude: one ULP there."""
        if magnitude == 0:
            return self.tiniest
        exponent = int(np.frexp(magnitude)[1]) - 1
        return float(2.0 ** (max(exponent, self.lowest) - self.digits + 1))


# torch dtype name -> its format; a complex number is a pair of these. Other dtypes are exact.
PRECISIONS: dict[str, Precision] = {
    "float16": Precision(11, -14),
    "bfloat16": Precision(8, -126),
    "float32": Precision(24, -126),
    "float64": Precision(53, -1022),
    "complex64": Precision(24, -126),
    "complex128": Precision(53, -1022),
}
EXACT = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)) | frozenset(
    {"bool"}
)
