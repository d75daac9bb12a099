"""What a captured model takes and gives, and how the results of the emitted model are nested."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
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


def nested_result(
    structure: Structure, leaves: Sequence[Any], omitted: Collection[int] = ()
) -> ast.expr:
    """Return the expression of the model's result, nested as PyTorch's.

    Args:
        structure: of the result.
        leaves: what the captured program returns, in order: values, numbers, constants.
        omitted: places of leaves to leave out, with the containers that hold nothing else.
    """
    found = _nested(structure, iter(enumerate(leaves)), omitted)
    if found is None:
        raise AssertionError("all leaves of a result are left out")
    return found


def _leaf(argument: Any) -> Structure:
    if isinstance(argument, TensorArgument):
        return TENSOR
    if isinstance(argument, ConstantArgument):
        return Structure.constant(argument.value)
    return NUMBER


def _nested(
    structure: Structure, leaves: Iterator[tuple[int, Any]], omitted: Collection[int]
) -> ast.expr | None:
    if structure.kind in ("tensor", "number", "constant"):
        place, leaf = next(leaves)
        return None if place in omitted else to_ast(leaf)
    found = [_nested(item, leaves, omitted) for item in structure.items]
    items = [item for item in found if item is not None]
    if found and not items:
        return None
    if structure.kind == "dict":
        pairs = zip(structure.keys, found, strict=True)
        return ast.Dict([ast.Constant(key) for key, item in pairs if item is not None], items)
    return ast.List(items) if structure.kind == "list" else ast.Tuple(items)
