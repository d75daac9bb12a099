"""Run a torch model's ``load_state_dict`` on a checkpoint, and see where each tensor arrives."""

from __future__ import annotations

import copy
import inspect
import re
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.keys.metadata import module_paths, translated
from mlxport.converter.plan.loading import is_extra_state
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.torch_tensor import tensor_to_torch, tensor_view
from mlxport.converter.terminal import cleaned
from mlxport.converter.torch_model.loading_code import state_of


@dataclass(frozen=True)
class Attempt:
    """One way of handing a checkpoint to a model.

    Attributes:
        keys: name in the state dict -> key of the checkpoint's tensor.
        others: name in the state dict -> key of what stands there and is no tensor.
        filled: name -> the model's own tensor, for counters that the checkpoint lacks.
    """

    keys: Mapping[str, str]
    others: Mapping[str, str] = field(default_factory=dict)
    filled: Mapping[str, torch.Tensor] = field(default_factory=dict)


class LoadingError(Exception):
    """A model's ``load_state_dict`` refused a state dict, or failed.

    Attributes:
        complaints: what it said, line by line.
        failed: whether that was not PyTorch's list of what does not fit.
    """

    def __init__(self, complaints: list[str], *, failed: bool) -> None:
        super().__init__("\n".join(complaints))
        self.complaints, self.failed = complaints, failed

    @property
    def unexpected(self) -> list[str]:
        """The names that were too many, where nothing else was wrong."""
        if len(self.complaints) != 1 or not self.complaints[0].startswith("Unexpected key(s)"):
            return []
        return _QUOTED.findall(self.complaints[0])

    @property
    def count(self) -> int:
        """How much was wrong; code that failed counts as several."""
        if self.failed:
            return _FAILURE
        return sum(max(1, len(_QUOTED.findall(line))) for line in self.complaints)


_FAILURE = 5
_QUOTED = re.compile(r'"([^"]*)"')
_HEADING = re.compile(r"Error\(s\) in loading state_dict for [^\n]*:\n\t")


def load_state_dict(
    model: torch.nn.Module,
    checkpoint: Checkpoint,
    attempt: Attempt,
    *,
    in_files: Mapping[str, str],
    private: bool,
) -> dict[str, str]:
    """Load a state dict strictly; return path of a tensor -> key of the tensor that arrived there.

    A tensor that the model's code made of others has no key.

    Args:
        model: changed in place, even where it fails.
        checkpoint: the tensors, and the metadata of modules.
        attempt: what is handed over.
        in_files: key of the checkpoint -> that in its file, where it is another.
        private: hand copies over, which the model's code may change and keep. Otherwise each
            tensor is read when it is asked for.

    Raises:
        LoadingError: the model refuses it, or its code fails.
    """
    given = OrderedDict[str, Any]()
    copies: dict[Hashable, torch.Tensor] = {}
    for name, key in attempt.keys.items():
        if not private and not is_extra_state(name):
            given[name] = _Unread(checkpoint.tensors, key)
            continue
        # what is one tensor in the file is one tensor in the state dict
        storage = checkpoint.storage[key]
        if storage not in copies:
            copies[storage] = tensor_to_torch(checkpoint.tensors[key])
        given[name] = copies[storage]
    keys = {id(value): attempt.keys[name] for name, value in reversed(given.items())}
    given |= {n: copy.deepcopy(checkpoint.others[key]) for n, key in attempt.others.items()}
    given |= {name: tensor.detach().clone() for name, tensor in attempt.filled.items()}
    if (metadata := _metadata(model, checkpoint, attempt, in_files)) is not None:
        given._metadata = metadata  # type: ignore[attr-defined]
    arrivals = _Arrivals(keys, copies.values())
    try:
        with arrivals:
            _call(model, given)
    except Exception as error:  # the model's code is anyone's
        raise _loading_error(error) from error
    return {
        path: found
        for path, target in state_of(model).items()
        if (found := arrivals.key_of(target)) is not None
    }


def _call(model: torch.nn.Module, given: OrderedDict[str, Any]) -> None:
    load = model.load_state_dict
    try:
        parameters = inspect.signature(load).parameters
    except (TypeError, ValueError):
        parameters = inspect.signature(torch.nn.Module.load_state_dict).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if "strict" in parameters or inspect.Parameter.VAR_KEYWORD in kinds:
        load(given, strict=True)
    else:
        load(given)


def _metadata(
    model: torch.nn.Module,
    checkpoint: Checkpoint,
    attempt: Attempt,
    in_files: Mapping[str, str],
) -> OrderedDict[str, Any] | None:
    """Return the metadata of the model's modules, under its names; None where there is none."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if checkpoint.module:  # the modules themselves were saved, not what they say of themselves
        return OrderedDict((path, {"version": m._version}) for path, m in modules.items())
    if checkpoint.metadata is None:
        return None
    paths = module_paths({name: in_files.get(key, key) for name, key in attempt.keys.items()})
    found = OrderedDict[str, Any]()
    for path in {**dict.fromkeys(modules), **dict.fromkeys(paths)}:
        noted = checkpoint.metadata.get(translated(path, paths))
        if noted is not None:
            found[path] = copy.deepcopy(dict(noted))
    return found


def _loading_error(error: Exception) -> LoadingError:
    text = str(error)
    listing = isinstance(error, RuntimeError) and _HEADING.match(text)
    lines = _HEADING.sub("", text, count=1).split("\n\t")
    if not listing:
        lines = [f"{type(error).__name__}: {text}"]
    return LoadingError([cleaned(" ".join(line.split())) for line in lines], failed=not listing)


class _Arrivals(TorchFunctionMode):
    """Sees which tensor of the state dict is copied into which of the model."""

    def __init__(self, keys: Mapping[int, str], copies: Any) -> None:
        super().__init__()
        self._keys = keys
        self._copies = list(copies)
        self._at = {_place(c): keys[id(c)] for c in self._copies if c.numel() and id(c) in keys}
        self._arrived: dict[int, str | None] = {}
        self._seen: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (torch.Tensor.copy_, torch.Tensor.module_load) and len(args) > 1:
            target, value = args[0], args[1]
            self._seen.append(target)  # its id stays its own
            self._arrived[id(target)] = self._key(value)
        return func(*args, **(kwargs or {}))

    def key_of(self, target: torch.Tensor) -> str | None:
        """Return the key of what a tensor of the model was given last."""
        return self._arrived.get(id(target)) or (self._key(target) if target.numel() else None)

    def _key(self, value: Any) -> str | None:
        if id(value) in self._keys:
            return self._keys[id(value)]
        return self._at.get(_place(value)) if isinstance(value, torch.Tensor) else None


def _place(tensor: torch.Tensor) -> Hashable:
    if tensor.layout is not torch.strided or tensor.is_meta:
        return None
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


class _Unread:
    """A tensor of a checkpoint that is read where PyTorch computes with it: a copy is a read."""

    def __init__(self, tensors: Mapping[str, Tensor], key: str) -> None:
        self._tensors, self._key = tensors, key

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self._tensors[self._key].shape)

    def read(self) -> torch.Tensor:
        return tensor_view(self._tensors[self._key])

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.read()[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.read(), name)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given, named = tree_map_only(cls, cls.read, (args, dict(kwargs or {})))
        return func(*given, **named)
