"""Refuse tensors of kinds that MLX lacks (sparse, nested, 8-bit floats) where a model uses them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from mlxport.converter.errors import CaptureError, StateDictError
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.torch_model.calls import spread_arguments
from mlxport.converter.torch_model.model_state import ModelState

_NO_DTYPE = {
    torch.float8_e4m3fn: "bfloat16 holds all its values",
    torch.float8_e5m2: "bfloat16 holds all its values",
    torch.float8_e4m3fnuz: "bfloat16 holds all its values",
    torch.float8_e5m2fnuz: "bfloat16 holds all its values",
    torch.float8_e8m0fnu: "bfloat16 holds all its values",
    torch.complex32: "complex64 holds all its values",
}


# of torch.export about such a tensor; the last is what it says of an op on a jagged one
_COMPLAINTS = "nested|sparse|jagged|strides|NotImplemented to Tensor"


def check_tensor_kinds(model: torch.nn.Module, program: ExportedProgram) -> None:
    """Refuse what MLX has no arrays for; take sparse and nested buffers that nothing reads out.

    Args:
        model: the torch module.
        program: what torch.export captured, changed in place.

    Raises:
        CaptureError: the model takes, keeps or computes such tensors; all of them are listed.
    """
    _drop_unused(program)
    found = dict(_not_plain(model))
    for node in program.graph.nodes:
        # what comes of such a tensor is of its kind too: the first is told
        first = node.users and not any(map(_obstacle, node.all_input_nodes))
        if first and (reason := _obstacle(node)):
            found.setdefault(_name(program, node), reason)
    _refuse(model, found)


def check_input_kinds(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Refuse inputs of kinds that MLX has no arrays for, and nested parameters and buffers.

    torch.export takes no model that has such, read or not.

    Args:
        model: the torch module.
        args: its positional inputs.
        kwargs: its keyword inputs.

    Raises:
        CaptureError: there are such; all of them are listed.
    """
    found = {}
    for name, value in spread_arguments(model, args, kwargs).items():
        reasons = (_why_not(t) for t in tree_leaves(value) if isinstance(t, torch.Tensor))
        if reason := next(filter(None, reasons), ""):
            found[f"the input {name}"] = reason
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_nested:
            found[name] = _why_not(tensor)
    _refuse(model, found)


def check_attributes(model: torch.nn.Module, error: Exception) -> None:
    """Refuse a model of which torch.export cannot take a tensor of such a kind that it keeps.

    Args:
        model: the torch module.
        error: what torch.export raised.

    Raises:
        CaptureError: it says so, and the model has such tensors; all of them are listed.
    """
    if re.search(_COMPLAINTS, str(error), re.IGNORECASE):
        kept = ModelState(model).named_tensors()
        _refuse(model, {name: why for name, tensor in kept if (why := _why_not(tensor))})


def _refuse(model: torch.nn.Module, found: Mapping[str, str]) -> None:
    if found:
        raise CaptureError.listing(
            f"{type(model).__name__} uses tensors of kinds that MLX has no arrays for:",
            [f"{name}: {reason}" for name, reason in found.items()],
            "Change the model so that it takes, keeps and computes the other kind.",
        )


def _not_plain(model: torch.nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the keys of the state dict whose values cannot be written down, and why."""
    for key, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            try:
                tensor_from_torch(value)
            except StateDictError as reason:
                yield key, str(reason)


def _obstacle(node: Node) -> str:
    return next((why for value in _tensors(node) if (why := _why_not(value))), "")


def _tensors(node: Node) -> Iterator[torch.Tensor]:
    yield from (v for v in tree_leaves(node.meta.get("val")) if isinstance(v, torch.Tensor))


def _why_not(value: torch.Tensor) -> str:
    if value.is_nested:
        return "nested; a padded tensor and a mask hold the same"
    if value.layout is not torch.strided:
        return f"sparse ({str(value.layout).removeprefix('torch.')}); .to_dense() gives a dense one"
    if value.dtype in _NO_DTYPE:
        return f"{str(value.dtype).removeprefix('torch.')}; {_NO_DTYPE[value.dtype]}"
    return ""


def _name(program: ExportedProgram, node: Node) -> str:
    """Return what a node is called in the model: a tensor's name, an argument, an op's place."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    if node.op == "placeholder":
        known = node.name in names
        return names[node.name] if known else f"the input {node.target}"
    stack: Any = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return f"{node.target}, in {path or 'the model itself'}"


def _drop_unused(program: ExportedProgram) -> None:
    """Take out the sparse and nested tensors that the model keeps and does not read."""
    signature = program.graph_signature
    for node in list(program.graph.nodes):
        if node.op != "placeholder" or node.users or node.name in signature.user_inputs:
            continue
        if all(value.layout is torch.strided and not value.is_nested for value in _tensors(node)):
            continue
        for spec in [s for s in signature.input_specs if getattr(s.arg, "name", "") == node.name]:
            signature.input_specs.remove(spec)
            program.state_dict.pop(spec.target or "", None)
            program.constants.pop(spec.target or "", None)
        program.graph.erase_node(node)
    program.graph_module.recompile()
