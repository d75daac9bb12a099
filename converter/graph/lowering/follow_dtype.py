"""Floats computed from no float of the model's follow the dtype of those they meet.

A mask or a table of positions that ``forward`` creates, or computes from integers, is in the dtype
the torch model had when it was captured. Written with that dtype it would promote everything after
it once the MLX model is cast to half precision. So where it meets a float of the model's, of the
same dtype in PyTorch, it is cast to that one's: nothing changes until the model is cast.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils._pytree import tree_map

from mlxport.converter.graph.ir.caches import CacheValue
from mlxport.converter.graph.ir.code import expression
from mlxport.converter.graph.ir.nodes import flat
from mlxport.converter.graph.ir.scopes import BodyScope
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Use, Value, Variable

# What is read of an array without its values.
_FORM = frozenset({"shape", "ndim", "size"})


class DtypeFlow:
    """Which values of a body no float of the model's flows into: no float input, no weight.

    Args:
        body: the body, which gains the casts.
        inputs: what it is given.
    """

    def __init__(self, body: BodyScope, inputs: Sequence[Value]) -> None:
        self._body = body
        self._inputs = _floats(inputs)
        self._independent = {v.variable for v in inputs if not v.dtype.is_floating_point}
        self._analysed = 0  # statements

    def followed(self, arguments: Any, *, called: bool = False) -> Any:
        """Return the arguments of a node, independent floats cast to the dtype of the others.

        Args:
            arguments: nested values.
            called: whether a module is called: its weights count as floats that are met, and for
                their dtype stands that of the body's first float argument.
        """
        self._analyse()
        floats = _floats(flat(arguments))
        independent = [value for value in floats if value.variable in self._independent]
        if not independent:
            return arguments
        others = [value for value in floats if value.variable not in self._independent]
        others += self._inputs if called else []
        casts = {value.variable: self._cast(value, others) for value in independent}
        return tree_map(
            lambda x: casts.get(x.variable, x) if isinstance(x, Value) else x, arguments
        )

    def _cast(self, value: Value, others: Sequence[Value]) -> Value:
        other = next((one for one in others if one.dtype == value.dtype), None)
        if other is None:
            return value
        code = expression("a.astype(b.dtype)", {"a": value, "b": other})
        result = self._body.compute(code, value.shape, value.dtype, value.order, value.name)
        result.provenance, result.lineage = value.provenance, value.lineage
        return result

    def _analyse(self) -> None:
        """Note the values of the statements that are new; those that are no floats count too."""
        for statement in self._body.statements[self._analysed :]:
            depends = self._depends(statement)
            self._independent |= {
                value.variable
                for value in statement.targets
                if not (depends and value.dtype.is_floating_point)
            }
        self._analysed = len(self._body.statements)

    def _depends(self, statement: Statement) -> bool:
        """Whether an expression reads a float of the model's, or what was computed from one."""
        read = _read(statement.code)
        return any(v is None or v not in self._independent for v in read)


def _floats(values: Sequence[Value]) -> list[Value]:
    """Return the arrays of floats among some values; a cache is an object."""
    return [v for v in values if v.dtype.is_floating_point and not isinstance(v, CacheValue)]


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
