"""All a torch model is, as plain facts to compare: what a call of mlxport has to leave as it was.

Written apart from the library's own snapshot, so that the two can disagree.
"""

from __future__ import annotations

import functools
import hashlib
import random
import types
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

Facts = dict[str, Any]
ATOMS = (bool, int, float, complex, str, bytes, type(None), type, types.ModuleType)


def facts(model: nn.Module) -> Facts:
    """Every value that is reachable from a model, by the path to it, and what the process has."""
    found: Facts = {}
    seen: dict[int, Any] = {}  # also keeps objects alive, as identities are facts
    waiting: list[tuple[str, Any]] = [("model", model)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, ATOMS):
            found[path] = (type(value), repr(value))
            continue
        found[path] = (type(value), id(value))
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, torch.Tensor):
            found[f"{path}: tensor"] = of_tensor(value)
        if isinstance(value, np.ndarray):
            found[f"{path}: array"] = (value.shape, value.dtype, value.tobytes())
        if isinstance(value, np.random.Generator):
            found[f"{path}: state"] = repr(value.bit_generator.state)
        if isinstance(value, torch.Generator):
            found[f"{path}: state"] = digest(value.get_state())
        inside = list(contents(value))
        found[f"{path}: order"] = [name for name, _ in inside]
        waiting += ((f"{path}{name}", item) for name, item in inside)
    found["process"] = of_process()
    found["seen"] = seen
    return found


def contents(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds: attributes, items, the variables of a closure, a bound object."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple, deque)):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield "{}", repr(sorted(map(id, value)))
    elif isinstance(value, types.FunctionType):
        cells = [cell for cell in value.__closure__ or () if cell_is_set(cell)]
        yield from ((f"<{i}>", cell.cell_contents) for i, cell in enumerate(cells))
    elif isinstance(value, types.MethodType):
        yield from ((".__self__", value.__self__), (".__func__", value.__func__))
    elif isinstance(value, functools.partial):
        yield from ((".args", value.args), (".keywords", value.keywords))
    if isinstance(value, nn.Module):
        for cls in type(value).__mro__:
            if not cls.__module__.startswith(("torch.", "builtins")):
                own = {k: v for k, v in vars(cls).items() if not callable(v) and k[:2] != "__"}
                yield from ((f".{cls.__name__}::{k}", v) for k, v in own.items())
    slots = getattr(type(value), "__slots__", ()) if type(value).__module__[:5] != "torch" else ()
    yield from ((f".{name}", getattr(value, name, None)) for name in slots if name[:2] != "__")
    foreign = ("torch.", "mlxport.", "logging", "threading", "weakref", "functools")
    if isinstance(value, (nn.Module, torch.Tensor)) or not type(value).__module__.startswith(
        foreign
    ):
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            yield from ((f".{name}", item) for name, item in attributes.items())


def cell_is_set(cell: types.CellType) -> bool:
    """Whether a variable of a closure has a value."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def of_tensor(tensor: torch.Tensor) -> Any:
    """What a tensor is: its kind, its layout, its memory and its bits."""
    kind = (tensor.dtype, tensor.layout, tensor.device, tensor.requires_grad, tensor.is_leaf)
    gradient = id(tensor.grad) if tensor.is_leaf else id(tensor.grad_fn)
    if isinstance(tensor, FakeTensor) or tensor.is_meta:
        return (*kind, gradient)
    if tensor.layout is not torch.strided or tensor.is_nested:
        tensor = (
            tensor.to_dense()
            if not tensor.is_nested
            else torch.cat([part.flatten() for part in tensor.unbind()])
        )
        return (*kind, gradient, tuple(tensor.shape), digest(tensor))
    place = (tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), tensor.data_ptr())
    return (*kind, gradient, place, digest(tensor))


def digest(tensor: torch.Tensor) -> str:
    """A digest of a tensor's bits."""
    # a copy, as NumPy's view of a tensor keeps it from being resized
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().clone()
    return hashlib.sha256(plain.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def of_process() -> Any:
    """What all models of the process share."""
    module = torch.nn.modules.module
    return (
        digest(torch.get_rng_state()),
        random.getstate(),
        repr(np.random.get_state()),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        list(warnings.filters),
        [
            list(hooks)
            for name, hooks in vars(module).items()
            if name.startswith("_global_") and isinstance(hooks, dict)
        ],
    )


def differences(before: Facts, after: Facts) -> list[str]:
    """The paths at which two snapshots differ."""
    names = dict.fromkeys([*before, *after])
    return [name for name in names if name != "seen" and before.get(name) != after.get(name)]


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Fail where what runs inside changes a model, whether it raises or not."""
    before = facts(model)
    try:
        yield
    finally:
        changed = differences(before, facts(model))
        assert not changed, "\n".join(changed[:20])
