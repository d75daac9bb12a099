"""Keep all that a torch model is, find what has changed since, and put it back."""

from __future__ import annotations

import enum
import functools
import logging
import threading
import types
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mlxport.converter.torch_model.control_flow import control_flow_written_out
from mlxport.converter.torch_model.positions import POSITIONED, PositionState
from mlxport.converter.torch_model.process_state import process_left_as_it_was
from mlxport.converter.torch_model.reachable_code import (
    CachedFunction,
    GlobalNames,
    ReachableCode,
    is_foreign,
)
from mlxport.converter.torch_model.state_parts import (
    GENERATORS,
    ArrayState,
    AttributesState,
    CacheState,
    CellState,
    ClassDataState,
    ClassState,
    GeneratorState,
    GlobalsState,
    GradientState,
    ItemsState,
    NamedItemsState,
    StatePart,
)
from mlxport.converter.torch_model.tensor_state import TensorState, WatchedWrites

_logger = logging.getLogger(__name__)

# nothing in them can change, or it is none of a model's
_ATOMS = {
    *(bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), range),
    *(slice, type, types.ModuleType, types.BuiltinFunctionType, types.CodeType),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size),
}
_CLOSED = (type, types.ModuleType, enum.Enum, logging.Logger, threading.Thread)
_OF_MODULE = ("_parameters", "_buffers", "_modules")
_Found = Iterator[tuple[Any, str]]  # what something holds, and what that is called


class ModelState:
    """Everything that is reachable from a model, as it is now.

    Parameters, buffers and other tensors by their bits; attributes, hooks and the items of
    containers by identity and order; objects that modules have as attributes, closures of hooks,
    class attributes, what functions keep by ``lru_cache``, globals that the model's code fills,
    random generators, how far iterators over sequences and files are. What nothing can put back (a
    generator's place) is left alone.

    A parameter's values are copied when an op writes to them, which `watching` looks out for; all
    other tensors at once.

    Args:
        model: the model.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._seen: dict[int, Any] = {}  # keeps what was seen alive, so that identities stay
        self._parts: list[tuple[str, StatePart]] = []
        self._code = ReachableCode()
        self._visit(model)

    def tensors(self) -> list[torch.Tensor]:
        """Return all tensors that are reachable, each once; gradients are none of them."""
        return [state.tensor for state in self._tensor_states()]

    def named_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield these tensors with what they are called; items of a container as that is."""
        for label, part in self._parts:
            if isinstance(part, TensorState):
                yield label, part.tensor

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Copy what ops write to, as long as this lasts; to be open while the model runs."""
        with WatchedWrites(self._tensor_states()):
            yield

    def changes(self) -> list[str]:
        """Name what was replaced, or whose contents changed; modes and plain equals are none."""
        found = (name for label, part in self._parts for name in part.changes(label))
        return list(dict.fromkeys(found))

    def restore(self) -> None:
        """Make the model what it was."""
        for label, part in self._parts:
            try:
                part.restore()
            except Exception:  # one that cannot be put back must not keep the others from it
                _logger.warning("%s could not be put back", label or "the model", exc_info=True)

    def _tensor_states(self) -> Iterator[TensorState]:
        yield from (part for _, part in self._parts if isinstance(part, TensorState))

    def _visit(self, model: torch.nn.Module) -> None:
        waiting: list[tuple[Any, str]] = [(model, "")]
        while waiting:  # no recursion: models nest deeper than Python calls may
            value, label = waiting.pop()
            if type(value) not in _ATOMS and id(value) not in self._seen:
                self._seen[id(value)] = value
                waiting += reversed(list(self._kept(value, label)))

    def _kept(self, value: Any, label: str) -> _Found:
        """Keep what a value is; yield what it holds."""
        if isinstance(value, torch.Tensor):
            yield from self._tensor(value, label)
        elif isinstance(value, torch.nn.Module):
            yield from self._module(value, label)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value, label)
        elif isinstance(value, types.MethodType):
            yield from ((value.__self__, label), (value.__func__, label))
        elif isinstance(value, functools.partial):
            yield from ((value.func, label), (value.args, label), (value.keywords, label))
        elif isinstance(value, CachedFunction):
            self._parts.append((label, CacheState(value)))
        elif isinstance(value, GlobalNames):
            kept = GlobalsState(value.variables, value.names)
            self._parts.append((label, kept))
            yield from ((item, f"{name} (a global)") for name, item in kept.before.items())
        elif isinstance(value, (np.ndarray, bytearray)):
            self._parts.append((label, ArrayState(value)))
        elif isinstance(value, GENERATORS):
            self._parts.append((label, GeneratorState(value)))
        elif isinstance(value, POSITIONED):
            self._parts.append((label, PositionState(value)))
        elif not isinstance(value, _CLOSED):
            yield from self._object(value, label)

    def _tensor(self, tensor: torch.Tensor, label: str) -> _Found:
        lasting = isinstance(tensor, torch.nn.Parameter)
        self._parts.append((label, TensorState(tensor, keep_values=not lasting)))
        if tensor.is_leaf:
            self._parts.append((label, GradientState(tensor)))
        yield from self._named_items(vars(tensor), label)

    def _module(self, module: torch.nn.Module, label: str) -> _Found:
        self._parts.append((label, ClassState(module)))
        attributes = vars(module)
        self._parts.append((label, NamedItemsState(attributes)))
        for name in _OF_MODULE[:2]:
            yield from self._named_items(attributes.get(name, {}), label)
        rest = {name: value for name, value in attributes.items() if name not in _OF_MODULE}
        yield from ((value, _below(label, name)) for name, value in rest.items())
        for cls in _user_classes(type(module)):
            named = f"{cls.__name__} (the class)"
            yield from self._class(cls, named)
        yield from ((found, label) for found in self._code.of_class(type(module)))
        yield from self._named_items(attributes.get("_modules", {}), label)
        if isinstance(module, (list, dict)):
            yield from self._items(module, label)

    def _class(self, cls: type, label: str) -> _Found:
        if id(cls) in self._seen:
            return
        self._seen[id(cls)] = cls
        kept = ClassDataState(cls)
        self._parts.append((label, kept))
        yield from ((value, f"{label}.{name}") for name, value in kept.before.items())
        yield from ((v, label) for v in vars(cls).values() if isinstance(v, CachedFunction))

    def _function(self, function: types.FunctionType, label: str) -> _Found:
        if is_foreign(function.__module__):
            return
        for cell in function.__closure__ or ():
            kept = CellState(cell)
            self._parts.append((label, kept))
            yield kept.before, label
        yield function.__defaults__, label
        yield function.__kwdefaults__, label
        if vars(function):
            yield from self._named_items(vars(function), label)
        yield from ((found, label) for found in self._code.of_function(function))

    def _object(self, value: Any, label: str) -> _Found:
        if isinstance(value, (dict, list, set, deque)):
            yield from self._items(value, label)
        elif isinstance(value, (tuple, frozenset)):
            yield from ((item, label) for item in value)
        elif is_foreign(type(value).__module__) and type(value) is not types.SimpleNamespace:
            return
        attributes = getattr(value, "__dict__", None)
        if type(attributes) is dict:
            yield from self._named_items(attributes, label)
        if slots := [name for cls in type(value).__mro__ for name in _slots(cls)]:
            kept = AttributesState(value, slots)
            self._parts.append((label, kept))
            yield from ((item, f"{label}.{name}") for name, item in kept.before.items())

    def _items(self, items: Any, label: str) -> _Found:
        self._parts.append((label, ItemsState(items)))
        values = dict.values(items) if isinstance(items, dict) else items
        yield from ((value, label) for value in list(values))

    def _named_items(self, items: dict[str, Any], label: str) -> _Found:
        self._parts.append((label, NamedItemsState(items)))
        yield from ((value, _below(label, str(name))) for name, value in list(items.items()))


@contextmanager
def left_as_it_was(model: torch.nn.Module) -> Iterator[ModelState]:
    """Make a model, and what the process has for all models, what they were, at the end."""
    with process_left_as_it_was():
        state = ModelState(model)
        try:
            yield state
        finally:
            state.restore()


@contextmanager
def trial_run(model: torch.nn.Module) -> Iterator[ModelState]:
    """Let a model run, and undo at the end what it does to itself; see `left_as_it_was`."""
    with left_as_it_was(model) as state, state.watching():
        yield state


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Keep a model and all its modules in eval mode for a while, its control flow written out.

    What a model does to itself when its mode changes (merging weights, say) is undone at the end.
    """
    if not any(module.training for module in model.modules()):
        with control_flow_written_out():
            yield
        return
    with control_flow_written_out(), left_as_it_was(model) as state:
        with state.watching():
            _to_eval(model)
        yield


def _to_eval(model: torch.nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError as error:  # exported programs have no modes
        _logger.debug("%s: %s", type(model).__name__, error)
        for module in model.modules():
            module.training = False


def _below(label: str, name: str) -> str:
    return f"{label}.{name}" if label else name


def _user_classes(cls: type) -> Iterator[type]:
    yield from (one for one in cls.__mro__ if not is_foreign(one.__module__))


def _slots(cls: type) -> Iterator[str]:
    """Yield the names of a class's slots, as they are attributes."""
    slots = vars(cls).get("__slots__", ())
    for name in [slots] if isinstance(slots, str) else slots:
        if name not in ("__dict__", "__weakref__"):
            private = name.startswith("__") and not name.endswith("__")
            yield f"_{cls.__name__.lstrip('_')}{name}" if private else name
