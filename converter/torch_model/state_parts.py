"""What a model is made of besides tensors: how each kind is kept, compared and put back."""

from __future__ import annotations

import logging
import random
import types
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch

from mlxport.converter.torch_model.tensor_state import bitwise_equal

_logger = logging.getLogger(__name__)

_MISSING = object()


class StatePart(Protocol):
    """Something that can change: what it was, how to tell that it changed, how to put it back."""

    def changes(self, label: str) -> Iterable[str]:
        """Yield the names of what changed; ``label`` is that of the whole."""

    def restore(self) -> None:
        """Put it back."""


class ItemsState:
    """The items of a list, dict, set or deque, by identity and in their order."""

    def __init__(self, items: Any) -> None:
        self._items = items
        self.before = _listed(items)

    def changes(self, label: str) -> Iterator[str]:
        """Yield the label, if there are other items."""
        if not self._is_unchanged():
            yield label

    def restore(self) -> None:
        """Put the items back, by the methods of the built-in classes alone."""
        if self._is_unchanged():
            return
        items, before = self._items, self.before
        if isinstance(items, OrderedDict):
            OrderedDict.clear(items)
            for key, value in before:
                OrderedDict.__setitem__(items, key, value)
        elif isinstance(items, dict):
            dict.clear(items)
            dict.update(items, before)
        elif isinstance(items, list):
            list.__setitem__(items, slice(None), before)
        elif isinstance(items, set):
            set.clear(items)
            set.update(items, before)
        else:
            deque.clear(items)
            deque.extend(items, before)

    def _is_unchanged(self) -> bool:
        return same_items(_listed(self._items), self.before)


class NamedItemsState(ItemsState):
    """The items of a dict whose keys are names: attributes, buffers, parameters, modules."""

    def changes(self, label: str) -> Iterator[str]:
        """Yield the names of the items that are others, but for modes and plain equals."""
        before, now = dict(self.before), dict(self._items)
        for name in dict.fromkeys([*before, *now]):
            was, is_now = before.get(name, _MISSING), now.get(name, _MISSING)
            if was is not is_now and name != "training" and not _plain_equals(was, is_now):
                yield f"{label}.{name}" if label else str(name)


class AttributesState:
    """The slots of an object, or the plain attributes of a class.

    Args:
        owner: the object or class.
        names: of its attributes.
    """

    def __init__(self, owner: Any, names: Iterable[str]) -> None:
        self._owner, self._names = owner, tuple(names)
        self.before = self._read()

    def changes(self, label: str) -> Iterator[str]:
        """Yield the names of the attributes that are others."""
        now = self._read()
        for name in dict.fromkeys([*self.before, *now]):
            was, is_now = self.before.get(name, _MISSING), now.get(name, _MISSING)
            if was is not is_now and not _plain_equals(was, is_now):
                yield f"{label}.{name}"

    def restore(self) -> None:
        """Set them again."""
        now = self._read()
        for name in dict.fromkeys([*self.before, *now]):
            was = self.before.get(name, _MISSING)
            if was is now.get(name, _MISSING):
                continue
            if was is _MISSING:
                delattr(self._owner, name)
            elif isinstance(self._owner, type):
                setattr(self._owner, name, was)
            else:
                object.__setattr__(self._owner, name, was)

    def _read(self) -> dict[str, Any]:
        found = {name: getattr(self._owner, name, _MISSING) for name in self._names}
        return {name: value for name, value in found.items() if value is not _MISSING}


class ClassDataState(AttributesState):
    """The attributes of a class that are data: numbers, texts, tensors, containers."""

    def __init__(self, owner: type) -> None:
        super().__init__(owner, ())

    def _read(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in vars(self._owner).items()
            if not name.startswith("__") and isinstance(value, DATA)
        }


class ClassState:
    """Which class an object is of: lazy modules and parametrisations change theirs."""

    def __init__(self, value: Any) -> None:
        self._value, self._class = value, type(value)

    def changes(self, label: str) -> Iterator[str]:
        """Yield the label, if it is of another class."""
        if type(self._value) is not self._class:
            yield f"{label}.__class__" if label else "__class__"

    def restore(self) -> None:
        """Give it its class again."""
        if type(self._value) is not self._class:
            self._value.__class__ = self._class


class CellState:
    """What a variable of a closure is."""

    def __init__(self, cell: types.CellType) -> None:
        self._cell = cell
        self.before = self._read()

    def changes(self, label: str) -> Iterator[str]:
        """Yield the label, if it is something else."""
        if self._read() is not self.before:
            yield label

    def restore(self) -> None:
        """Set it again."""
        if self._read() is self.before:
            return
        if self.before is _MISSING:
            del self._cell.cell_contents
        else:
            self._cell.cell_contents = self.before

    def _read(self) -> Any:
        try:
            return self._cell.cell_contents
        except ValueError as error:  # not assigned yet
            _logger.debug("a variable of a closure: %s", error)
            return _MISSING


class GlobalsState:
    """The global variables that a function assigns."""

    def __init__(self, variables: dict[str, Any], names: Iterable[str]) -> None:
        self._variables, self._names = variables, tuple(names)
        self.before = self._read()

    def changes(self, label: str) -> Iterator[str]:
        """Yield the names of those that are others."""
        now = self._read()
        for name in self._names:
            was, is_now = self.before[name], now[name]
            if was is not is_now and not _plain_equals(was, is_now):
                yield f"{name} (a global)"

    def restore(self) -> None:
        """Assign them again."""
        for name, value in self.before.items():
            if value is _MISSING:
                self._variables.pop(name, None)
            else:
                self._variables[name] = value

    def _read(self) -> dict[str, Any]:
        return {name: self._variables.get(name, _MISSING) for name in self._names}


class CacheState:
    """The cache of a function, which is emptied where a run has put something in."""

    def __init__(self, function: Any) -> None:
        self._function, self._misses = function, function.cache_info().misses

    def changes(self, label: str) -> Iterator[str]:
        """Yield nothing: what a cache keeps is computed again."""
        yield from ()

    def restore(self) -> None:
        """Empty it, if there is something new in it."""
        if self._function.cache_info().misses != self._misses:
            self._function.cache_clear()


class ArrayState:
    """The values of a NumPy array or of bytes that can be written to."""

    def __init__(self, array: Any) -> None:
        self._array, self._before = array, array.copy()

    def changes(self, label: str) -> Iterator[str]:
        """Yield the label, if the values are others."""
        if not self._is_unchanged():
            yield label

    def restore(self) -> None:
        """Write the values again."""
        if not self._is_unchanged():
            self._array[...] = self._before

    def _is_unchanged(self) -> bool:
        now, before = self._array, self._before
        if now.shape != before.shape or now.dtype != before.dtype:
            return False
        if now.dtype.hasobject:
            return same_items(list(now.flat), list(before.flat))
        return bool(now.tobytes() == before.tobytes())


class GeneratorState:
    """The state of a generator of random numbers: torch's, NumPy's or Python's."""

    def __init__(self, generator: Any) -> None:
        self._generator, self._before = generator, _drawn(generator)

    def changes(self, label: str) -> Iterator[str]:
        """Yield the label, if numbers were drawn."""
        if not _same_drawn(_drawn(self._generator), self._before):
            yield label

    def restore(self) -> None:
        """Set its state again."""
        generator = self._generator
        if isinstance(generator, torch.Generator):
            generator.set_state(self._before)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = self._before
        elif isinstance(generator, np.random.RandomState):
            generator.set_state(self._before)
        else:
            generator.setstate(self._before)


class GradientState:
    """The gradient a tensor has, by identity; its values are those of a tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor, self._before = tensor, tensor.grad

    def changes(self, label: str) -> Iterator[str]:
        """Yield the name, if it is another tensor."""
        if self._tensor.grad is not self._before:
            yield f"{label}.grad"

    def restore(self) -> None:
        """Set it again."""
        if self._tensor.grad is not self._before:
            self._tensor.grad = self._before


GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
DATA = (
    *(bool, int, float, complex, str, bytes, type(None), torch.Tensor, np.ndarray),
    *(list, dict, set, deque, tuple),
)


def same_items(a: list[Any], b: list[Any]) -> bool:
    """Whether two lists hold the same objects; of pairs, whether both of each are the same."""
    return len(a) == len(b) and all(map(_same_item, a, b))


def _same_item(a: Any, b: Any) -> bool:
    if isinstance(a, _Pair) and isinstance(b, _Pair):
        return a[0] is b[0] and a[1] is b[1]
    return a is b


class _Pair(tuple[Any, Any]):
    """A key and its value."""


def _listed(items: Any) -> list[Any]:
    if isinstance(items, dict):
        # an OrderedDict has an order of its own beside the dict's
        cls = OrderedDict if isinstance(items, OrderedDict) else dict
        return [_Pair(pair) for pair in cls.items(items)]
    return list(items)


def _plain_equals(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, (bool, int, float, str)) and bool(a == b)


def _drawn(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state()


def _same_drawn(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return bitwise_equal(a, b)
    return repr(a) == repr(b)
