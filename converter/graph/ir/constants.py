"""Short constants as literals of the emitted source: ``0.5``, ``mx.array([0.5, 0.25])``."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import torch

from mlxport.converter.graph.ir.code import OMIT, call
from mlxport.converter.graph.ir.value import Value

SHORT = 16  # elements
LARGEST = 2**31  # of the integers that MLX takes for any integer array

_DTYPES = {
    torch.float32: OMIT,  # what MLX makes of numbers with a point, of integers and of truth values
    torch.int32: OMIT,
    torch.bool: OMIT,
    **{
        dtype: ast.Attribute(ast.Name("mx"), str(dtype).removeprefix("torch."))
        for dtype in (
            torch.float16,
            torch.bfloat16,
            torch.float64,
            torch.int8,
            torch.int16,
            torch.int64,
            torch.uint8,
            torch.uint16,
            torch.uint32,
        )
    },
}


def is_short(constant: torch.Tensor) -> bool:
    """Whether a constant is written into the code; a longer one goes to the weights."""
    return 0 < constant.numel() <= SHORT and constant.dtype in _DTYPES


def can_be_written(dtype: torch.dtype) -> bool:
    """Whether numbers of a dtype can stand in code that MLX runs on any device."""
    return dtype in _DTYPES and dtype is not torch.float64


def array_of(constant: torch.Tensor) -> ast.Call:
    """Return the expression that makes a short constant."""
    return call("mx.array", numbers_of(constant), dtype=_DTYPES[constant.dtype])


def number_of(constant: torch.Tensor, other: Value) -> float | None:
    """Return a constant without axes as a number that does beside another array what it does.

    None where there is none: where PyTorch would choose another dtype, or for truth values.
    """
    like = torch.empty((1,) * other.ndim, dtype=other.dtype, device="meta")
    number: float = numbers_of(constant)
    if isinstance(number, bool) or (isinstance(number, int) and abs(number) >= LARGEST):
        return None
    dtype = torch.result_type(like, constant)
    if dtype != torch.result_type(like, number):
        return None
    if dtype.is_floating_point and not _same(constant.to(dtype), torch.tensor(number, dtype=dtype)):
        return float(constant.item())
    return number


def numbers_of(constant: torch.Tensor) -> Any:
    """Return a tensor's values in lists, those of float32 by the shortest that mean them."""
    if constant.dtype is not torch.float32:
        return constant.tolist()
    return _shortest(constant.tolist())


def _shortest(values: Any) -> Any:
    if isinstance(values, list):
        return [_shortest(value) for value in values]
    return float(str(np.float32(values)))


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a, b) or bool(torch.isnan(a) & torch.isnan(b))
