"""Find the state dict in what a training script saved, by looking at the structure.

A state dict is a mapping from text to tensors. Training scripts put it under any name
(``state_dict``, ``network_weights``, ``ema`` …), beside optimiser states, metrics and settings.
Where more than one mapping could be meant, that is an error that lists them, never a guess.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import first_names, printable
from mlxport.converter.checkpoint.formats.inert_pickle import Placeholder
from mlxport.converter.checkpoint.formats.recognise import DEEPSPEED, is_inflated
from mlxport.converter.errors import CheckpointError, SeveralStateDictsError, StateDictError
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.torch_tensor import tensor_from_torch

ROOT = "."

# Words in the names of what training keeps beside the weights; only looked into where there is
# nothing else, or by its key.
_TRAINING = {"opt", "optim", "optimizer", "optimizers", "scheduler", "schedulers", "scaler"}
_TRAINING |= {"rng", "callbacks", "loops", "logging", "metrics", "extra"}
# What DeepSpeed puts beside tensors.
_DEEPSPEED = {"ds_version", "ds_config", "param_shapes", "zero_stage", "fp32_flat_groups"}
_AVERAGED = ", a moving average of the weights (EMA)"
_MODULE_PARTS = {"_parameters", "_buffers", "_modules"}
_SHOWN = 8
_DEEPEST = 32
_MOST_MODULES = 1_000_000


@dataclass(frozen=True)
class Candidate:
    """A mapping that could be the state dict.

    Attributes:
        path: the keys that lead to it, from the outermost.
        content: all of it, tensors and the rest.
        module: the class of the pickled module it was taken from, empty for a mapping.
    """

    path: tuple[str, ...]
    content: Mapping[Any, Any]
    module: str = ""

    @property
    def key(self) -> str:
        """Where it stands, as the user may give it."""
        return "/".join(self.path) or ROOT

    @property
    def tensors(self) -> dict[str, Any]:
        """The entries that are tensors, those mlxport cannot read included."""
        return {k: v for k, v in self.content.items() if isinstance(k, str) and _is_tensor(v)}


@dataclass(frozen=True)
class Found:
    """The state dict of a file.

    Attributes:
        key: where it stands; ``"."`` is the file itself.
        entries: the tensors.
        notes: what else there was.
        others: the entries that are no tensors.
        metadata: what ``state_dict()`` noted of each module, by its path; None where nothing.
        module: the class of the pickled module they were taken from, empty for a mapping.
        hints: what kind of file it is, where that is no plain state dict.
    """

    key: str
    entries: dict[str, Any]
    notes: tuple[str, ...]
    others: dict[str, Any]
    metadata: dict[str, dict[str, Any]] | None
    module: str
    hints: tuple[str, ...] = ()


def find_state_dict(loaded: Any, path: Path, key: str | None = None) -> Found:
    """Find the state dict in the object a file holds.

    Args:
        loaded: what was unpickled.
        path: the file, for messages.
        key: where the state dict stands: names joined by ``/``, or the last of them.

    Raises:
        StateDictError: there is none, or there are several and ``key`` does not say which.
    """
    everything = list(_candidates(loaded))
    try:
        chosen = _named(everything, path, key) if key is not None else _only(everything, path)
    except SeveralStateDictsError as error:
        message = "\n".join([str(error), *_hints(loaded)])
        raise SeveralStateDictsError(message, error.choices) from error
    except StateDictError as error:
        raise StateDictError("\n".join([str(error), *_hints(loaded)])) from error
    entries = chosen.tensors
    return Found(
        chosen.key,
        entries,
        tuple(_notes(loaded, chosen, entries)),
        {k: v for k, v in chosen.content.items() if isinstance(k, str) and k not in entries},
        metadata_of(chosen.content),
        chosen.module,
        tuple(_hints(loaded)),
    )


def metadata_of(state: Any) -> dict[str, dict[str, Any]] | None:
    """Return a copy of the metadata that ``state_dict()`` puts beside a state dict.

    None where there is none, or where it is not of that form.
    """
    noted = getattr(state, "_metadata", None)
    if not isinstance(noted, dict) or not all(isinstance(v, dict) for v in noted.values()):
        return None
    return {str(path): copy.deepcopy(dict(values)) for path, values in noted.items()}


def to_tensors(entries: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors as their bits, sharing memory.

    Raises:
        CheckpointError: some are not plain (sparse, quantised, on no device …), or a few values
            repeated without end; all are listed.
    """
    tensors: dict[str, Tensor] = {}
    problems = []
    size = path.stat().st_size
    for name, value in entries.items():
        try:
            if isinstance(value, Placeholder):
                raise StateDictError(f"made by {printable(value.source)}, not a plain tensor")
            if is_inflated(value.numel() * value.element_size(), size):
                raise StateDictError(f"one value claims to be {tuple(value.shape)}")
            tensors[name] = tensor_from_torch(value)
        except StateDictError as error:
            problems.append(f"{printable(name)}: {error}")
    if problems:
        raise CheckpointError.listing(
            f"{path}: {len(problems)} of {len(entries)} tensors cannot be read:",
            problems,
            "Load the model in PyTorch, make them plain tensors and save its state dict.",
        )
    return tensors


def memory_of(name: str, tensor: Tensor) -> Hashable:
    """Return the identity of a tensor's memory; empty tensors have none but their name."""
    if not tensor.bits.size:
        return name
    address = tensor.bits.__array_interface__["data"][0]
    return address, tensor.dtype, tensor.shape, tensor.bits.strides


def _candidates(loaded: Any) -> Iterator[Candidate]:
    """Yield every mapping that holds tensors, outer ones first; optimiser states are none."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), loaded)]
    seen: set[int] = set()
    while waiting:
        path, node = waiting.pop()
        if id(node) in seen or len(path) > _DEEPEST:
            continue
        seen.add(id(node))
        if _is_module(node):
            candidate = Candidate(path, dict(_module_entries(node)), node.source)
        else:
            content = _content(node)
            inner = [((*path, str(k)), v) for k, v in content.items() if _nests(v)]
            waiting += reversed(inner)
            candidate = Candidate(path, content)
        if candidate.tensors:
            yield candidate


def _content(node: Any) -> Mapping[Any, Any]:
    """Return what a node holds by name: of lists by position, of optimiser states nothing."""
    if isinstance(node, Placeholder):
        return node.items
    if isinstance(node, dict):
        return {} if {"state", "param_groups"} <= set(node) else node
    return (
        {i: v for i, v in enumerate(node) if _nests(v)} if isinstance(node, (list, tuple)) else {}
    )


def _nests(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple, Placeholder))


def _is_tensor(value: Any) -> bool:
    if isinstance(value, Placeholder):
        return value.source.startswith(("torch._utils._rebuild_", "torch._tensor."))
    return isinstance(value, torch.Tensor)


def _is_module(node: Any) -> bool:
    return (
        isinstance(node, Placeholder)
        and isinstance(node.state, dict)
        and set(node.state) >= _MODULE_PARTS
    )


def _module_entries(module: Placeholder) -> Iterator[tuple[str, Any]]:
    """Yield what ``state_dict()`` of a pickled ``torch.nn.Module`` would hold."""
    waiting: list[tuple[str, Any, frozenset[int]]] = [("", module, frozenset())]
    for _ in range(_MOST_MODULES):
        if not waiting:
            return
        prefix, node, above = waiting.pop()
        state = node.state
        temporary = state.get("_non_persistent_buffers_set")
        temporary = temporary if isinstance(temporary, (set, frozenset, list, tuple)) else ()
        for part in ("_parameters", "_buffers"):
            for name, value in _items(state[part]):
                if value is not None and not (part == "_buffers" and name in temporary):
                    yield f"{prefix}{name}", value
        inside = above | {id(node)}
        waiting += [
            (f"{prefix}{name}.", child, inside)
            for name, child in reversed(_items(state["_modules"]))
            if _is_module(child) and id(child) not in inside
        ]
    raise StateDictError(
        f"a pickled {printable(module.source)} claims more than {_MOST_MODULES} modules"
    )


def _items(value: Any) -> list[tuple[Any, Any]]:
    """Return the items of what should be a dict, and none of what a damaged pickle put there."""
    return list(value.items()) if isinstance(value, dict) else []


def _only(everything: list[Candidate], path: Path) -> Candidate:
    """Return the one candidate that is a state dict."""
    likely = [c for c in everything if not _is_training(c.path)] or everything
    shaped = [c for c in likely if any(_has_axes(t) for t in c.tensors.values())] or likely
    left = [c for c in shaped if not any(_is_beside(c, other) for other in shaped)]
    if not left:
        raise StateDictError(
            f"{path}: no state dict in it: no mapping from names to tensors. If it holds something "
            "else that belongs to a model, load it in PyTorch and torch.save its state_dict()."
        )
    if len(left) > 1:
        heading = f"{path}: {len(left)} mappings in it could be the state dict:"
        lines = [heading, *(f"  {line}" for line in _shown(left)), _advice()]
        choices = {candidate.key: tuple(candidate.tensors) for candidate in left}
        raise SeveralStateDictsError("\n".join(lines), choices)
    return left[0]


def _advice() -> str:
    return f"Say which one is meant: {argument('key', 'NAME')}."


def _named(everything: list[Candidate], path: Path, key: str) -> Candidate:
    exact = [candidate for candidate in everything if candidate.key == key]
    matching = exact or [c for c in everything if c.path and c.path[-1] == key]
    if len(matching) != 1:
        raise StateDictError.listing(
            f"{path}: {len(matching) or 'no'} mappings of tensors stand under key {key!r}; "
            "there are:",
            _shown(matching or everything) or ["none"],
            _advice(),
        )
    return matching[0]


def _hints(loaded: Any) -> Iterator[str]:
    """Say what kind of file it is, by what stands in it beside tensors."""
    names = set(_content(loaded)) if isinstance(loaded, dict) else set()
    if names & _DEEPSPEED:
        yield DEEPSPEED
    if any(
        path[-1:] == ("shadow_params",) and isinstance(value, list)
        for path, value in _nested(loaded)
    ):
        yield (
            "Under shadow_params is a moving average of the weights (EMA) without names: copy it "
            "into the model in PyTorch (ema.copy_to(model.parameters())) and save that."
        )


def _nested(node: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what stands in the two outermost levels of a file, by its names."""
    for name, value in _content(node).items():
        yield (str(name),), value
        if isinstance(value, dict):
            yield from (((str(name), str(inner)), item) for inner, item in value.items())


def _shown(candidates: Iterable[Candidate]) -> list[str]:
    return [
        f"{printable(c.key)}: {first_names(tuple(c.tensors))}" + _AVERAGED * _is_averaged(c.path)
        for c in candidates
    ]


def _is_averaged(path: tuple[str, ...]) -> bool:
    return any("ema" in re.split(r"[\W_]+", name.lower()) for name in path)


def _is_training(path: tuple[str, ...]) -> bool:
    return any(_TRAINING & set(re.split(r"[\W_]+", name.lower())) for name in path)


def _has_axes(tensor: Any) -> bool:
    return isinstance(tensor, Placeholder) or tensor.ndim > 0


def _is_beside(outer: Candidate, inner: Candidate) -> bool:
    """Tell whether the outer tensors are what a script keeps beside the inner (``best_acc1``)."""
    if inner is outer or inner.path[: len(outer.path)] != outer.path:
        return False
    names = outer.tensors
    loose = not any("." in name or name in ("weight", "bias") for name in names)
    return loose and len(names) <= len(inner.tensors)


def _notes(loaded: Any, chosen: Candidate, entries: Mapping[str, Any]) -> Iterator[str]:
    if chosen.module:
        yield (
            f"the parameters and buffers of a pickled {printable(chosen.module)} were read; what "
            "its own state_dict() would add or rename is not"
        )
    outer = _content(loaded)
    if chosen.path:
        beside = [str(name) for name in outer if str(name) != chosen.path[0]]
        yield f"state dict found under {chosen.key!r}" + _listed("; beside it, left out: ", beside)
    others = [str(name) for name in chosen.content if name not in entries]
    if others:
        yield _listed("entries of the state dict that are no tensors, left out: ", others)


def _listed(heading: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(map(printable, names[:_SHOWN]))
    return heading + shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
