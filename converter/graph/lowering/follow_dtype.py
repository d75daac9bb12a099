"""Floats that come of no other float follow the dtype of those they meet.

A mask or a table of positions that ``forward`` makes of nothing, or of integers, is in the dtype
the torch model had when it was captured. Written with that dtype it would promote everything after
it once the MLX model is cast to half precision. So where it meets a float of the model's, of the
same dtype in PyTorch, it is cast to that one's: nothing changes until the model is cast.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils._pytree import tree_map

from mlxport.converter.graph.ir.context import Context, Statement
from mlxport.converter.graph.ir.nodes import flat
from mlxport.converter.graph.ir.value import Use, Value, Variable

# What is read of an array without its values.
_FORM = frozenset({"shape", "ndim", "size"})


def following(cx: Context, arguments: Any, *, called: bool = False) -> Any:
    """Return the arguments of a node with made floats cast to the dtype of the others.

    Args:
        cx: the body being written.
        arguments: nested values.
        called: whether a module is called: its weights count as floats that are met, and for their
            dtype stands that of the body's first float argument.
    """
    _scan(cx)
    floats = [value for value in flat(arguments) if value.dtype.is_floating_point]
    made = [value for value in floats if value.variable in cx.made]
    if not made:
        return arguments
    others = [value for value in floats if value.variable not in cx.made]
    if called:
        others += [value for value in cx.inputs if value.dtype.is_floating_point]
    cast = {value.variable: _cast(cx, value, others) for value in made}
    return tree_map(lambda x: cast.get(x.variable, x) if isinstance(x, Value) else x, arguments)


def _cast(cx: Context, value: Value, others: Sequence[Value]) -> Value:
    other = next((one for one in others if one.dtype == value.dtype), None)
    if other is None:
        return value
    name, cx.name = cx.name, value.name
    result = cx.step("a.astype(b.dtype)", value, a=value, b=other)
    cx.name = name
    result.provenance, result.lineage = value.provenance, value.lineage
    return result


def _scan(cx: Context) -> None:
    """Note which of the values computed since the last scan are made floats, or no floats."""
    for statement in cx.statements[cx.scanned :]:
        met = _meets(cx, statement)
        cx.made |= {
            v.variable for v in statement.targets if not (met and v.dtype.is_floating_point)
        }
    cx.scanned = len(cx.statements)


def _meets(cx: Context, statement: Statement) -> bool:
    """Whether an expression reads a float of the model's: an argument, a weight, what comes of one.

    Values that are no floats count as made, for so is what comes of them.
    """
    solid = {value.variable for value in cx.inputs if not value.dtype.is_floating_point} | cx.made
    return any(variable is None or variable not in solid for variable in _read(statement.code))


def _read(tree: ast.AST) -> Iterator[Variable | None]:
    """Yield the variables whose contents an expression reads; None for arrays of the model."""
    if isinstance(tree, ast.Attribute) and tree.attr in _FORM:
        return
    if isinstance(tree, ast.Name) and tree.id == "self":
        yield None
    elif isinstance(tree, Use):
        yield tree.key
    for child in ast.iter_child_nodes(tree):
        yield from _read(child)
