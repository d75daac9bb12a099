"""The weight plan of a lowered model: which state dict key becomes which MLX parameter, and how."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping

import torch
from torch.export.graph_signature import InputKind

from mlxport.converter.graph.capture.capture import Captured
from mlxport.converter.graph.ir.body import Lowered, StoredArray
from mlxport.converter.graph.ir.caches import CachedArgument
from mlxport.converter.graph.ir.naming import ModelNames
from mlxport.converter.graph.ir.value import logical_order
from mlxport.converter.plan.record import CacheRecord, Layout, StateRecord
from mlxport.converter.plan.steps import Permute, Step
from mlxport.converter.plan.tensor import Tensor, TensorSpec
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.plan.weight_plan import Entry, WeightPlan
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.loading_code import state_of
from mlxport.converter.torch_model.model_state import ModelState

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


def cache_record(cached: CachedArgument | None) -> CacheRecord | None:
    """Return the record of the argument that is a cache; None where none is."""
    return None if cached is None else CacheRecord(cached.name, cached.layers, cached.places)


def state_records(lowered: Lowered, names: ModelNames) -> Iterator[StateRecord]:
    """Yield what a call of the model writes, in the order of the first writes."""
    for path in lowered.state:
        array = lowered.arrays[path]
        shape, dtype = tuple(array.tensor.shape), str(array.tensor.dtype).removeprefix("torch.")
        yield StateRecord(path, names.target(path), Layout(shape, dtype, array.order))


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


# -- what is kept beside the state dict ------------------------------------------------------------


def derived_tensors(captured: Captured) -> dict[str, tuple[str, ...]]:
    """Return what a model keeps beside its state dict and had computed of it -> of which keys.

    What a first call put into a cache, or a constructor into an attribute, is a constant to whoever
    captures the model: other weights would not change it. Found are those that PyTorch still knows
    to depend on parameters, and those that share memory with the state dict. Of what was computed
    without gradients nobody can tell.

    Args:
        captured: the captured model.
    """
    state = state_of(captured.model)
    known = {id(tensor): key for key, tensor in reversed(state.items())}
    memory = {place: key for key, tensor in reversed(state.items()) for place in _memory(tensor)}
    found = {}
    for name, tensor in _constants_of(captured).items():
        sources = [known[id(leaf)] for leaf in _computed_of(tensor) if id(leaf) in known]
        sources += [memory[place] for place in _memory(tensor) if place in memory]
        if sources and id(tensor) not in known:
            found[name] = tensor, tuple(dict.fromkeys(sources))
    if not found:
        return {}
    places = [(label, set(_memory(t))) for label, t in ModelState(captured.model).named_tensors()]
    result: dict[str, tuple[str, ...]] = {}
    for name, (tensor, made_of) in found.items():
        mine = set(_memory(tensor))
        labels = (label for label, place in places if place & mine and label not in state)
        label = next(labels, name)  # one in a container has no name in the program
        result[label] = tuple(dict.fromkeys([*result.get(label, ()), *made_of]))
    return result


def _constants_of(captured: Captured) -> dict[str, torch.Tensor]:
    """Return the tensors besides parameters and persistent buffers that the program reads."""
    program = captured.exported
    read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    kinds = (InputKind.CONSTANT_TENSOR, InputKind.BUFFER)
    constants: Mapping[str, object] = program.constants
    return {
        spec.target: tensor
        for spec in program.graph_signature.input_specs
        if spec.kind in kinds
        and spec.arg.name in read
        and spec.target is not None
        and isinstance(tensor := constants.get(spec.target), torch.Tensor)
    }


def _computed_of(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the leaves of a tensor's history."""
    waiting, seen = [tensor.grad_fn], set()
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if (leaf := getattr(step, "variable", None)) is not None:
            yield leaf
        waiting += [before for before, _ in step.next_functions]


def _memory(tensor: torch.Tensor) -> Iterator[int]:
    if tensor.layout is torch.strided and not tensor.is_nested and tensor.numel():
        yield tensor.untyped_storage().data_ptr()
