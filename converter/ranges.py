"""Check that a number a user gives is one, and within its range."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

from mlxport.converter.arguments import argument
from mlxport.converter.errors import OptionsError

MOST_ELEMENTS = 2**31 - 1  # of an example input: 8 GB in float32


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number, of Python or NumPy; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def integers(name: str, values: Any, least: int, most: int) -> list[int]:
    """Return whole numbers of a range, given one by one or several together.

    Args:
        name: the keyword they were given by.
        values: what was given.
        least: the smallest that is allowed.
        most: the largest.

    Raises:
        OptionsError: some are none, or out of range; all of them are named.
    """
    given = list(values) if isinstance(values, Iterable) else [values]
    wrong = [value for value in given if not is_whole(value) or not least <= value <= most]
    if wrong:
        raise OptionsError(
            f"{argument(name)}: expected whole numbers from {least:,} to {most:,}, got "
            f"{', '.join(map(repr, wrong))}"
        )
    return [int(value) for value in given]


def positive(name: str, value: Any, most: float) -> float:
    """Return a number above 0, up to a largest; neither NaN nor infinity, True nor False.

    Args:
        name: the keyword it was given by.
        value: what was given.
        most: the largest that is allowed.

    Raises:
        OptionsError: it is none, or out of range.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not 0 < value <= most:
        said = argument(name, value)
        raise OptionsError(f"{said}: expected a number above 0, at most {most:g}")
    return float(value)
