"""Check and write arguments as handlers of several families do."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

from torch.fx import Node

from mlxport.converter.graph.ir.code import OMIT
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value, logical_order

FLOATING_ONLY = "floating-point dtypes only"

# A setting of all spatial axes, or one for each.
PerAxis: TypeAlias = "int | Sequence[int]"


def require_floating(cx: Context, doing: str, *values: Value | None) -> None:
    """Refuse operands that are not floating: integers, bools and complex numbers.

    Args:
        cx: the lowering.
        doing: what is done to them, for the message (``"convolution"``).
        values: the operands; None for those left out.

    Raises:
        Unsupported: some are not.
    """
    dtypes = {value.dtype for value in values if value is not None}
    if not all(dtype.is_floating_point for dtype in dtypes):
        listed = ", ".join(sorted(str(dtype) for dtype in dtypes))
        raise cx.refuse(f"{doing} of {listed}: only floating-point dtypes are supported")


def per_axis(value: PerAxis, default: int | None = None) -> Any:
    """Write a setting as one integer where all axes agree; leave the default out."""
    if isinstance(value, int):
        return OMIT if value == default else value
    if len(set(value)) == 1:
        return per_axis(value[0], default)
    return tuple(value)


def node_of(cx: Context) -> Node:
    """Return the node being lowered, for what its values do not tell."""
    if cx.node.fx is None:
        raise AssertionError("this handler lowers nodes of captured graphs only")
    return cx.node.fx


def unread(cx: Context, first: int, last: int | None = None, *, doing: str) -> tuple[Value, ...]:
    """Return placeholders for results that are not computed, as nothing may read them.

    Args:
        cx: the lowering.
        first: index of the first of them.
        last: index behind the last of them; that of the last result if None.
        doing: the op, for the message (``"a determinant"``).

    Raises:
        Unsupported: one of them is read.
    """
    results = range(len(cx.results))[first:last]
    if any(reads(cx, result) for result in results):
        only = f"the first {first} results" if last is None else f"results {first} to {last - 1}"
        word = "more than " if last is None else ""
        raise cx.refuse(f"{doing} of which {word}{only} are read")
    placed = (cx.results[result] for result in results)
    return tuple(Value(s, d, logical_order(len(s)), cx.name) for s, d in placed)


def reads(cx: Context, result: int) -> bool:
    """Whether anything reads one of the node's several results."""
    return any(_reads(user, result) for user in node_of(cx).users)


def _reads(user: Any, result: int) -> bool:
    if user.target is not operator.getitem:
        return True
    readers = (str(reader.target) for reader in user.users)
    checks = "aten._linalg_check_errors.default"  # which stays out
    return bool(user.args[1] == result) and any(reader != checks for reader in readers)
