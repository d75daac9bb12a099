"""The arguments and results of emitted ``__call__`` methods."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.naming import identifier
from mlxport.converter.graph.value import Value


def argument_names(module: torch.nn.Module, count: int) -> list[str]:
    """Return names for ``count`` tensor arguments, those of ``forward`` where they fit."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(type(module).forward).parameters.values()
    named = [p.name for p in parameters if p.kind in kinds][1:]
    if count > len(named):
        return ["x"] if count == 1 else [f"x{i}" for i in range(count)]
    return ["x" if name in ("input", "inputs") else identifier(name) for name in named[:count]]


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
