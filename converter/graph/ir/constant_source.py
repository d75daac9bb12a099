"""Short expressions for constant arrays: ``mx.arange(7)``, ``mx.tril(mx.ones((7, 7)))``."""

from __future__ import annotations

import ast
from typing import Any

import torch

from mlxport.converter.graph.ir.code import OMIT, call
from mlxport.converter.graph.ir.constants import SHORT, array_of, can_be_written, numbers_of
from mlxport.converter.graph.ir.dtypes import mlx_dtype

# A float32 counts these without rounding.
_EXACT = 2**24


def short_expression(constant: torch.Tensor) -> ast.expr | None:
    """Return a short expression that makes a constant; None where there is none.

    One number everywhere, numbers in even steps, a triangle of one number, or a few integers; along
    new axes and repeated along others. Floats that are none of these are better left computed: the
    computation says what they are.
    """
    if not constant.numel() or not can_be_written(constant.dtype):
        return None
    core = constant.detach()
    for axis, size in enumerate(core.shape):
        if size > 1 and _same(core, core.narrow(axis, 0, 1).expand(core.shape)):
            core = core.narrow(axis, 0, 1)
    axes = tuple(axis for axis, size in enumerate(core.shape) if size == 1)
    inner = core.squeeze()
    if inner.ndim == 0:
        number = _shortest(inner.item(), constant.dtype)
        return filled_array(number, tuple(constant.shape), constant.dtype)
    code = _steps(inner) or _triangle(inner) or _few(inner)
    if code is None:
        return None
    if axes:
        code = call("mx.expand_dims", code, axes if len(axes) > 1 else axes[0])
    if core.shape != constant.shape:
        code = call("mx.broadcast_to", code, tuple(constant.shape))
    return code


def filled_array(number: float, shape: tuple[Any, ...], dtype: torch.dtype) -> ast.Call:
    """Return the expression of an array of one number, which is of the kind of the dtype."""
    mlx = mlx_dtype(dtype)
    if number in (0, 1) and str(number) != "-0.0":
        default: Any = OMIT if dtype == torch.float32 else mlx
        return call("mx.ones" if number else "mx.zeros", shape, dtype=default)
    default = OMIT if dtype in (torch.float32, torch.int32) else mlx
    value = complex(number) if dtype.is_complex else number  # MLX 0.32.4 heeds no other dtype then
    return call("mx.full", shape, value, dtype=default)


def _shortest(number: float, dtype: torch.dtype) -> Any:
    return numbers_of(torch.tensor(number, dtype=dtype)) if dtype == torch.float32 else number


def _steps(core: torch.Tensor) -> ast.Call | None:
    """Return an ``mx.arange`` of integers, of dtype float32 too."""
    if core.ndim != 1 or core.dtype == torch.bool:
        return None
    if core.dtype.is_floating_point:
        counted = core.abs().max() < _EXACT and torch.equal(core, core.round())
        if core.dtype != torch.float32 or not counted:
            return None
    start, step = int(core[0]), int(core[1]) - int(core[0])
    if step == 0:
        return None
    stop = start + step * len(core)
    if not torch.equal(core, torch.arange(start, stop, step).to(core.dtype)):
        return None
    bounds = [stop] if (start, step) == (0, 1) else [start, stop]
    steps = [step] if step != 1 else []
    natural = core.dtype == torch.int32
    return call("mx.arange", *bounds, *steps, dtype=OMIT if natural else mlx_dtype(core.dtype))


def _triangle(core: torch.Tensor) -> ast.Call | None:
    """Return one number below or above a diagonal, and zero elsewhere."""
    if core.ndim != 2:
        return None
    rows, columns = torch.nonzero(core, as_tuple=True)
    number = core[rows[0], columns[0]].item()
    whole, offsets = torch.full_like(core, number), columns - rows
    filled = filled_array(_shortest(number, core.dtype), tuple(core.shape), core.dtype)
    for function, triangle, diagonal in (
        ("mx.tril", torch.tril, int(offsets.max())),
        ("mx.triu", torch.triu, int(offsets.min())),
    ):
        if _same(triangle(whole, diagonal), core):
            return call(function, filled, *([diagonal] if diagonal else []))
    return None


def _few(core: torch.Tensor) -> ast.Call | None:
    """Return a few integers or truth values in a list."""
    return None if core.is_floating_point() or core.numel() > SHORT else array_of(core)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two arrays hold the same numbers, bit for bit: -0 is not 0."""
    if not a.is_floating_point():
        return torch.equal(a, b)
    signs = torch.equal(torch.signbit(a), torch.signbit(b))
    return (
        signs and torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())
    )
