"""Let torch.export see what ``forward`` assigns to a buffer as a write into that buffer.

torch.export takes an assignment (``self.count = self.count + 1``) for a write at the end of the
model, in no module, and drops those to buffers that are not persistent. A write at the end of the
call that assigns says the same of later calls, and in which module. Whoever took the buffer before
it was assigned keeps what it was: a result of the call that shares its memory is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_leaves, tree_map_only

from mlxport.converter.torch_model.model_state import ModelState


@dataclass
class BufferWrites:
    """The buffers of a model that is being captured.

    Attributes:
        before: of each module, name -> the tensor that was its buffer when the model was called.
        unlike: qualified name of a buffer -> how what it is assigned differs from it.
    """

    before: list[tuple[str, torch.nn.Module, dict[str, Any]]] = field(default_factory=list)
    unlike: dict[str, str] = field(default_factory=dict)

    def read_again(self, program: ExportedProgram) -> dict[str, str]:
        """Return those of `unlike` whose values before the call the model reads.

        Args:
            program: the decomposed program.
        """
        takes = {name: node for node, name in program.graph_signature.inputs_to_buffers.items()}
        nodes = {node.name: node for node in program.graph.nodes}
        return {
            name: difference
            for name, difference in self.unlike.items()
            if name in takes and any(user.op != "output" for user in nodes[takes[name]].users)
        }

    def note(self, model: torch.nn.Module) -> None:
        """Note what the buffers are, at the beginning of a call of the model."""
        self.unlike.clear()
        self.before[:] = [(p, m, dict(m._buffers)) for p, m in model.named_modules() if m._buffers]

    def write(self, module: torch.nn.Module | None, result: Any) -> Any:
        """Write into buffers what they were assigned, and return the result of a call.

        Args:
            module: whose buffers; those of all modules if None.
            result: of the call; what of it shares memory with a buffer that is written is copied.
        """
        for path, owner, buffers in self.before:
            if module is None or owner is module:
                for name, buffer in buffers.items():
                    result = self._written(path, owner, name, buffer, result)
        return result

    def _written(
        self, path: str, owner: torch.nn.Module, name: str, buffer: Any, result: Any
    ) -> Any:
        value: Any = owner._buffers.get(name)
        if value is buffer or buffer is None:
            return result
        if difference := _difference(buffer, value):
            self.unlike[f"{path}.{name}" if path else name] = difference
            return result
        if any(_share(leaf, buffer) for leaf in tree_leaves(result)):
            result = tree_map_only(
                torch.Tensor, lambda leaf: leaf.clone() if _share(leaf, buffer) else leaf, result
            )
        buffer.copy_(value.detach())
        setattr(owner, name, buffer)  # torch.export, too, watches what is assigned
        return result


@contextmanager
def assignments_as_writes(model: torch.nn.Module, writes: BufferWrites) -> Iterator[None]:
    """Turn assignments to buffers into writes while a model is captured.

    Args:
        model: the torch module.
        writes: is told of them.
    """
    hooks = [model.register_forward_pre_hook(lambda root, _: writes.note(root))]
    for module in model.modules():
        if module._buffers and module is not model:
            hooks.append(module.register_forward_hook(lambda m, _, result: writes.write(m, result)))
    hooks.append(model.register_forward_hook(lambda _, __, result: writes.write(None, result)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def attributes_as_buffers(model: torch.nn.Module, changed: Sequence[str]) -> None:
    """Make buffers of the tensors that a model keeps as plain attributes and changes.

    Whoever calls this puts the model back as it was. What a weight or spectral norm computes anew
    before each call is no state.

    Args:
        model: the torch module.
        changed: names of what a call of it changes.
    """
    named = {f"{path}.".lstrip("."): module for path, module in model.named_modules()}
    for label in changed:
        path, _, name = label.rpartition(".")
        module = named.get(f"{path}." if path else "")
        value = vars(module).get(name) if module is not None else None
        if module is not None and type(value) is torch.Tensor and name not in _normed(module):
            del vars(module)[name]
            module.register_buffer(name, value.detach(), persistent=False)


def _normed(module: torch.nn.Module) -> set[str]:
    """Return the names of the weights that hooks make from others before each call."""
    hooks = module._forward_pre_hooks.values()
    return {hook.name for hook in hooks if isinstance(hook, (WeightNorm, SpectralNorm))}


def changed_besides(
    model: torch.nn.Module, changed: Sequence[str], state: Sequence[str]
) -> list[str]:
    """Return what a call changes in a model besides its state and weights made anew before it.

    Args:
        model: the torch module.
        changed: names of what a call of it changes, by any of their names.
        state: qualified names of the buffers that are its state.
    """
    tensors = dict(model.named_buffers(remove_duplicate=False))
    kept = {id(tensors[name]) for name in state if name in tensors}
    labels = {label for label, tensor in ModelState(model).named_tensors() if id(tensor) in kept}
    for path, module in model.named_modules(remove_duplicate=False):
        labels |= {f"{path}.{name}".lstrip(".") for name in _normed(module)}
    return [name for name in changed if name not in {*labels, *state}]


def written_by_several_names(model: torch.nn.Module, changed: Sequence[str]) -> list[str]:
    """Return the names of each buffer that has several and is changed, in one line each.

    Args:
        model: the torch module.
        changed: names of what a call of it changes, by any of their names.
    """
    names: dict[tuple[int, str], list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name in module._buffers:
            names.setdefault((id(module), name), []).append(f"{path}.{name}" if path else name)
    groups = [group for group in names.values() if len(group) > 1]
    return [" and ".join(group) for group in groups if not set(changed).isdisjoint(group)]


def _difference(buffer: torch.Tensor, value: Any) -> str:
    """Say how what a buffer is assigned differs from it; empty where it can be written into it."""
    if not isinstance(value, torch.Tensor):
        return f"it becomes {type(value).__name__}"
    if value.shape != buffer.shape:
        return f"it goes from {tuple(buffer.shape)} to {tuple(value.shape)}"
    if value.dtype != buffer.dtype:
        return f"it goes from {_name(buffer.dtype)} to {_name(value.dtype)}"
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _share(leaf: Any, buffer: torch.Tensor) -> bool:
    if not isinstance(leaf, torch.Tensor) or leaf.layout is not torch.strided:
        return False
    return bool(leaf.untyped_storage()._cdata == buffer.untyped_storage()._cdata)
