"""Give rules a module whose sizes and options are Python's numbers, where they were NumPy's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch


def with_plain_numbers(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module, or a shallow copy with Python's numbers in the place of NumPy's.

    People compute sizes by NumPy, PyTorch takes them, and rules look for Python's types. The copy
    shares all tensors.
    """
    parts = module.modules()
    if not any(_has_numpy(value) for part in parts for value in vars(part).values()):
        return module
    plain = copy.copy(module)
    vars(plain).update({name: plain_number(value) for name, value in vars(module).items()})
    plain._modules = {
        name: None if child is None else with_plain_numbers(child)
        for name, child in module._modules.items()
    }
    return plain


def plain_number(value: Any) -> Any:
    """Return a number of NumPy's as Python's, also inside tuples and lists; all else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (tuple, list) and _has_numpy(value):
        return type(value)(map(plain_number, value))
    return value


def _has_numpy(value: Any) -> bool:
    if type(value) in (tuple, list):
        return any(map(_has_numpy, value))
    return isinstance(value, np.generic)
