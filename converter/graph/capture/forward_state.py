"""Find what a model's forward() changes in the model itself, and restore it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

# of torch.nn.Module; what a forward() changes in them it changes in their items
_OF_MODULE = ("_parameters", "_buffers", "_modules", "training")
_CONTAINERS = (list, dict, set)


class ModuleState:
    """The attributes and buffers of all modules of a model, as they are now.

    Parameters are left to themselves, but for tables of embeddings that a forward() writes into.

    Args:
        model: the model.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._before = {
            module: {place: (value, _copy(value)) for place, value in _state_of(module)}
            for module in model.modules()
        }

    def changes(self) -> list[str]:
        """Name the attributes and buffers that were replaced, or whose contents changed."""
        found = []
        for path, module in self._model.named_modules():
            before = self._before.get(module, {})
            for place, value in _state_of(module):
                if place not in before or not _is_unchanged(value, *before[place]):
                    found.append(f"{path}.{place[1]}" if path else place[1])
        return found

    def restore(self) -> None:
        """Make the model what it was; containers within containers stay as they are."""
        for module, before in self._before.items():
            for place in [place for place, _ in _state_of(module) if place not in before]:
                del _owner(module, place)[place[1]]
            for place, (value, copy) in before.items():
                _owner(module, place)[place[1]] = value
                _refill(value, copy)


_Place = tuple[str, str]  # the dict of the module it is in, none for attributes; and its name


def _state_of(module: torch.nn.Module) -> Iterator[tuple[_Place, Any]]:
    for name, value in vars(module).items():
        if name not in _OF_MODULE:
            yield ("", name), value
    for name, value in module._buffers.items():
        yield ("_buffers", name), value
    if getattr(module, "max_norm", None) is not None:  # an embedding, which shortens rows it reads
        for name, value in module._parameters.items():
            yield ("_parameters", name), value


def _owner(module: torch.nn.Module, place: _Place) -> dict[str, Any]:
    owner: dict[str, Any] = getattr(module, place[0]) if place[0] else vars(module)
    return owner


def _copy(value: Any) -> Any:
    if type(value) in _CONTAINERS:
        return value.copy()
    return value.detach().clone() if isinstance(value, torch.Tensor) else None


def _is_unchanged(now: Any, before: Any, copy: Any) -> bool:
    plain = isinstance(now, (bool, int, float, str)) and type(now) is type(before)
    if now is not before:
        return plain and bool(now == before)
    return _is_equal(now, copy)


def _is_equal(value: Any, copy: Any) -> bool:
    """Whether a tensor has the same values, a container the same items."""
    if type(value) in _CONTAINERS:
        return _items(value) == _items(copy)
    if isinstance(value, torch.Tensor):
        same = value.shape == copy.shape
        return same and torch.allclose(value, copy, rtol=0, atol=0, equal_nan=True)
    return True


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [(key, id(item)) for key, item in value.items()]
    return [id(item) for item in value]


def _refill(value: Any, copy: Any) -> None:
    if _is_equal(value, copy):
        return
    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            value.set_(copy) if value.shape != copy.shape else value.copy_(copy)
        return
    value.clear()
    value.extend(copy) if isinstance(value, list) else value.update(copy)
