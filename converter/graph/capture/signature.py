"""What a captured model takes and gives, and how the results of the emitted model are nested."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, OutputKind, TensorArgument

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.ir.code import to_ast
from mlxport.converter.plan.structure import Signature, Structure
from mlxport.converter.torch_model.calls import keyword_only, spread_arguments
from mlxport.converter.torch_model.read_structure import NUMBER, TENSOR, nested, read_structure


def read_signature(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    program: ExportedProgram,
) -> Signature:
    """Return what a model takes and gives, as captured on these inputs.

    Raises:
        CaptureError: it takes or gives something without counterpart in MLX, or gives no tensor.
    """
    given = spread_arguments(model, args, kwargs)
    outputs = program.graph_signature.output_specs
    leaves = [_leaf(spec.arg) for spec in outputs if spec.kind is OutputKind.USER_OUTPUT]
    try:
        arguments = {name: read_structure(value) for name, value in given.items()}
    except CaptureError as error:
        raise CaptureError(f"the model takes {error}") from error
    try:
        result = nested(program.call_spec.out_spec, leaves)
    except CaptureError as error:
        raise CaptureError(f"the model returns {error}") from error
    if not result.tensors("output"):
        raise CaptureError("the model returns no tensor: there is nothing to compute in MLX")
    signature = Signature(arguments, result)
    return replace(signature, keywords=keyword_only(model, list(signature.taken())))


def nested_result(structure: Structure, leaves: Sequence[Any]) -> ast.expr:
    """Return the expression of the model's result, nested as PyTorch's.

    Args:
        structure: of the result.
        leaves: what the captured program returns, in order: values, numbers, constants.
    """
    return _nested(structure, iter(leaves))


def _leaf(argument: Any) -> Structure:
    if isinstance(argument, TensorArgument):
        return TENSOR
    if isinstance(argument, ConstantArgument):
        return Structure.constant(argument.value)
    return NUMBER


def _nested(structure: Structure, leaves: Iterator[Any]) -> ast.expr:
    if structure.kind in ("tensor", "number", "constant"):
        return to_ast(next(leaves))
    items = [_nested(item, leaves) for item in structure.items]
    if structure.kind == "dict":
        return ast.Dict([ast.Constant(key) for key in structure.keys], items)
    return ast.List(items) if structure.kind == "list" else ast.Tuple(items)
