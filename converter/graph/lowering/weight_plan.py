"""The weight plan of a lowered model: which state dict key becomes which MLX parameter, and how."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import torch

from mlxport.converter.graph.ir.body import Lowered, StoredArray
from mlxport.converter.graph.ir.naming import ModelNames
from mlxport.converter.graph.ir.value import logical_order
from mlxport.converter.plan.steps import Permute, Step
from mlxport.converter.plan.tensor import Tensor, TensorSpec
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.plan.weight_plan import Entry, WeightPlan
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.loading_code import state_of

UNUSED = "not used when the model runs in eval mode"


@stage("plan")
def weight_plan(lowered: Lowered, names: ModelNames) -> WeightPlan:
    """Return the plan of all tensors of the model; sources are keys of its state dict."""
    state = state_of(names.model)
    entries: list[Entry] = []
    ignored: dict[str, str] = {}
    for path, entry, reasons in lowered.entries():
        entries.append(entry.renamed(_below(path), _below(names.target(path))))
        ignored.update({_below(path)(key): reason for key, reason in reasons.items()})
    constants = {}
    for path, array in lowered.arrays_outside_layers().items():
        if path in state:
            entries.append(Entry((path,), (names.target(path),), _steps(array)))
        else:
            constants[names.target(path)] = "a constant of the model, in no state dict"
    used = {key for entry in entries for key in entry.sources}
    by_storage = {identity_of(state[key]): key for key in sorted(used, reverse=True)}
    aliases = {}
    for key, tensor in state.items():
        if key in used or key in ignored:
            continue
        shared = by_storage.get(identity_of(tensor))
        if shared is not None:
            aliases[key] = shared
        else:
            ignored[key] = UNUSED
    specs = {key: TensorSpec.of(tensor) for key, tensor in state_tensors(names.model).items()}
    ties = {
        key: by_storage[identity_of(state[key])]
        for key in sorted(used)
        if by_storage[identity_of(state[key])] != key
    }
    return WeightPlan(tuple(entries), ignored, aliases, constants, specs, ties)


def constants(lowered: Lowered, names: ModelNames) -> dict[str, Tensor]:
    """Return the arrays that are in no state dict, by target name, as stored."""
    state = state_of(names.model)
    return {
        names.target(path): _apply(_steps(array), tensor_from_torch(array.tensor))
        for path, array in lowered.arrays_outside_layers().items()
        if path not in state
    }


def state_tensors(model: torch.nn.Module) -> Mapping[str, Tensor]:
    """Return the parameters and persistent buffers of a torch model as raw tensors."""
    return {key: tensor_from_torch(value) for key, value in state_of(model).items()}


def identity_of(tensor: torch.Tensor) -> Hashable:
    """Return what two tensors share if they are the same memory seen the same way.

    Empty tensors share nothing.
    """
    if tensor.numel() == 0:
        return id(tensor)
    return (
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tuple(tensor.shape),
        tensor.stride(),
        tensor.dtype,
    )


def _steps(array: StoredArray) -> tuple[Step, ...]:
    return () if array.order == logical_order(array.tensor.ndim) else (Permute(array.order),)


def _apply(steps: tuple[Step, ...], tensor: Tensor) -> Tensor:
    for step in steps:
        (tensor,) = step.apply((tensor,))
    return tensor


def _below(path: str) -> Callable[[str], str]:
    prefix = f"{path}." if path else ""
    return lambda name: prefix + name
