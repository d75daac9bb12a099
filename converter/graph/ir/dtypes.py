"""Dtypes on both sides: their names in MLX, what each side promotes to, and casts between.

PyTorch computes in ``torch.result_type``, where Python numbers *and* 0-d tensors are weak: they
widen the category (bool < integer < floating) only. In MLX Python numbers alone are weak, integers
among them stand for int32, and 0-d arrays count like any other. Between arrays both agree.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from mlxport.converter.graph.ir.code import call, expression
from mlxport.converter.graph.ir.context import Context, Unsupported
from mlxport.converter.graph.ir.value import Order, Scalar, Value

_SAME_NAME = (
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.complex64,
)
MLX_NAME: dict[torch.dtype, str] = {
    torch.bool: "bool_",
    **{dtype: str(dtype).removeprefix("torch.") for dtype in _SAME_NAME},
}
HALF = (torch.float16, torch.bfloat16)
# What computes in place of dtypes that MLX has on no GPU.
_NARROWER = {torch.float64: torch.float32, torch.complex128: torch.complex64}

Number: TypeAlias = "bool | int | float"


@dataclass(frozen=True)
class Typed:
    """An array expression and its dtype, too small to be a value of its own.

    Attributes:
        code: the expression.
        dtype: the dtype MLX gives it.
    """

    code: ast.expr
    dtype: torch.dtype

    def to_ast(self) -> ast.expr:
        """Return the expression."""
        return self.code


NumericOperand: TypeAlias = "Value | Typed | Scalar | Number"


def mlx_dtype(dtype: torch.dtype) -> ast.expr:
    """Return the expression of MLX's counterpart (``mx.float32``).

    Raises:
        Unsupported: MLX has none that every device serves.
    """
    if dtype in MLX_NAME:
        return ast.Attribute(ast.Name("mx"), MLX_NAME[dtype])
    name = str(dtype).removeprefix("torch.")
    why = {
        torch.float64: "MLX has float64 on the CPU only. Compute in float32",
        torch.complex128: "MLX has no complex128. Compute in complex64",
    }
    if dtype in why:
        raise Unsupported(f"{name} values: {why[dtype]} (model.float(), or a cast).")
    raise Unsupported(f"{name} values: MLX has no such dtype. Cast them to one it has first.")


def narrower(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that MLX computes in where PyTorch does in another: float32 for float64."""
    return _NARROWER.get(dtype, dtype)


def in_narrower(tensor: torch.Tensor) -> torch.Tensor:
    """Return a constant in the dtype that MLX computes in.

    Raises:
        Unsupported: what is finite becomes infinite in it, or a single number zero.
    """
    dtype = narrower(tensor.dtype)
    if dtype == tensor.dtype:
        return tensor
    found = tensor.to(dtype)
    lost = bool((torch.isfinite(tensor) & ~torch.isfinite(found)).any())
    if lost or (tensor.ndim == 0 and tensor != 0 and found == 0):
        name, other = (str(d).removeprefix("torch.") for d in (tensor.dtype, dtype))
        raise Unsupported(f"{name} values beyond the range of {other}, which MLX computes in")
    return found


def mlx_promoted(*operands: NumericOperand) -> torch.dtype:
    """Return the dtype MLX gives to an arithmetic operation of these operands."""
    dtype: torch.dtype | None = None
    for operand in operands:
        if isinstance(operand, (Value, Typed)):
            given = operand.dtype
            dtype = given if dtype is None else torch.promote_types(dtype, given)
    for operand in operands:
        if _kind(operand) is float and (dtype is None or not is_inexact(dtype)):
            dtype = torch.float32
        elif _kind(operand) is int and dtype in (None, torch.bool):
            dtype = torch.int32
    return torch.bool if dtype is None else dtype


def torch_promoted(x: NumericOperand, y: NumericOperand) -> torch.dtype:
    """Return the dtype PyTorch computes ``x op y`` in."""
    return torch.result_type(_stand_in(x), _stand_in(y))


def _stand_in(operand: NumericOperand) -> torch.Tensor | Number:
    if isinstance(operand, (Value, Typed)):
        ndim = operand.ndim if isinstance(operand, Value) else 1
        return torch.empty((1,) * min(ndim, 1), dtype=operand.dtype, device="meta")
    return operand.kind(1) if isinstance(operand, Scalar) else operand


def _kind(operand: NumericOperand) -> type:
    """Return the Python type of a number, also of one known only at run time."""
    return operand.kind if isinstance(operand, Scalar) else type(operand)


def is_inexact(dtype: torch.dtype) -> bool:
    """Whether a dtype is floating or complex."""
    return dtype.is_floating_point or dtype.is_complex


def to_floating(dtype: torch.dtype) -> torch.dtype:
    """Return what both sides give for the exponential of such values: float32 of integers."""
    return dtype if is_inexact(dtype) else torch.float32


def cast_to(operand: Value | Typed, dtype: torch.dtype) -> Value | Typed:
    """Return the operand in the dtype; itself where it has it already.

    Raises:
        Unsupported: complex values would lose their imaginary parts.
    """
    if operand.dtype == dtype:
        return operand
    if operand.dtype.is_complex and not dtype.is_complex:
        raise Unsupported(f"complex values in {dtype}: take their real part or their size first")
    code = expression("x.astype(dtype)", {"x": operand, "dtype": mlx_dtype(dtype)})
    return Typed(code, dtype)


def widened(operand: Value | Typed) -> Value | Typed:
    """Return the operand in the dtype to accumulate in, as PyTorch does.

    Half precision is summed in float32: MLX's own sum of float16 overflows at 65504.
    """
    return cast_to(operand, torch.float32) if operand.dtype in HALF else operand


def number(value: Number | Scalar, dtype: torch.dtype) -> NumericOperand:
    """Return a Python number as an operand of arithmetic that PyTorch does in ``dtype``.

    PyTorch applies a number to half precision in float32, so one that the dtype cannot represent
    (1e6 or 1e-9 in float16) becomes a float32 array, and so does one known only at run time.

    Raises:
        Unsupported: an integer that an integer dtype cannot represent.
    """
    if isinstance(value, Scalar) and dtype in HALF:
        return Typed(call("mx.array", value, dtype=mlx_dtype(torch.float32)), torch.float32)
    if isinstance(value, (Scalar, bool, complex)):
        return value
    if not is_inexact(dtype) and isinstance(value, int) and dtype != torch.bool:
        require_fitting(value, dtype)
    if dtype in HALF and not _fits(value, dtype):
        return Typed(call("mx.array", float(value)), torch.float32)
    return value


def require_fitting(value: int, dtype: torch.dtype) -> None:
    """Refuse an integer that an integer dtype cannot represent.

    Raises:
        Unsupported: PyTorch would wrap it around, or raise.
    """
    limits = torch.iinfo(dtype)
    if not limits.min <= value <= limits.max:
        raise Unsupported(f"{value} does not fit {str(dtype).removeprefix('torch.')}")


def _fits(value: float, dtype: torch.dtype) -> bool:
    rounded = float(torch.tensor(value, dtype=torch.float64).to(dtype))
    return (
        rounded == value
        or not math.isfinite(value)
        or abs(rounded - value) <= (torch.finfo(dtype).eps / 2 * abs(value))
    )


def literal(value: Number | Scalar, dtype: torch.dtype) -> Any:
    """Return a Python number of the kind that goes with a dtype (``True`` for bool, …).

    One known only at run time is converted then.

    Raises:
        Unsupported: an integer that an integer dtype cannot represent.
    """
    if isinstance(value, Scalar):
        wanted = bool if dtype == torch.bool else float if is_inexact(dtype) else int
        return value if value.kind is wanted else call(wanted.__name__, value)
    if dtype == torch.bool:
        return bool(value)
    if isinstance(value, complex):
        return value
    if is_inexact(dtype):
        return float(value)
    require_fitting(int(value), dtype)
    return int(value)


def emit(
    cx: Context, template: str, gives: torch.dtype, order: Order | None, /, **operands: object
) -> Value:
    """Emit the node's result from an expression to which MLX gives the dtype ``gives``."""
    if gives == cx.dtype:
        mlx_dtype(gives)
        return cx.emit(template, order=order, **operands)
    wrapped = f"({template}).astype(dtype)"
    return cx.emit(wrapped, order=order, dtype=mlx_dtype(cx.dtype), **operands)


def emit_function(
    cx: Context,
    function: Callable[..., Any] | str,
    gives: torch.dtype,
    order: Order | None,
    /,
    *args: object,
    **kw: object,
) -> Value:
    """Emit the node's result from a call to which MLX gives the dtype ``gives``.

    Args:
        cx: the lowering context.
        function: a function of ``mlxport.layers``, or the name of one of MLX's.
        gives: the dtype.
        order: axis order of the result as stored; PyTorch's own if None.
        *args: values, numbers, strings, tuples and lists of them.
        **kw: the same, as keyword arguments; ``OMIT`` leaves one out.

    Raises:
        Unsupported: MLX has no such dtype.
    """
    return emit(cx, "call", gives, order, call=cx.calling(function, *args, **kw))


def typed(template: str, dtype: torch.dtype, /, **operands: object) -> Typed:
    """Return an intermediate array expression of the dtype MLX gives it."""
    return Typed(expression(template, operands), dtype)
