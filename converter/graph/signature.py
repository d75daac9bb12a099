"""How the results of the emitted model are nested."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from torch.export import ExportedProgram

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.value import Value


def nested_result(program: ExportedProgram, values: Sequence[Value]) -> ast.expr:
    """Return the expression of the model's result, nested as PyTorch's.

    Raises:
        CaptureError: the result holds a container other than tuple, list and dict.
    """
    spec = program.call_spec.out_spec
    remaining = list(values)
    tree = _nested(spec, remaining)
    if remaining:
        raise CaptureError(f"the model gives {len(values)} tensors, its structure names fewer")
    return tree


def _nested(spec: Any, remaining: list[Value]) -> ast.expr:
    if spec.is_leaf():
        if not remaining:
            raise CaptureError(
                "the model returns something other than tensors; return tensors only"
            )
        return remaining.pop(0).to_ast()
    children = [_nested(child, remaining) for child in spec.children()]
    if spec.type is dict or spec.type.__name__ == "OrderedDict":
        return ast.Dict([ast.Constant(key) for key in spec.context], children)
    if spec.type is list:
        return ast.List(children)
    if issubclass(spec.type, tuple):
        return ast.Tuple(children)
    raise CaptureError(
        f"the model returns a {spec.type.__name__}; return a tensor, tuple, list or dict of tensors"
    )
