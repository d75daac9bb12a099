"""A shape that tells which of its sizes are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

Note = Callable[[Iterable[int]], None]  # takes the axes that were read

# what an object cannot do without, and what tells nothing of a size
_PLAIN = frozenset(
    (
        *("__class__", "__class_getitem__", "__delattr__", "__dir__", "__doc__"),
        *("__getattribute__", "__getitem__", "__init__", "__init_subclass__", "__len__"),
        *("__new__", "__setattr__", "__sizeof__", "__subclasshook__"),
    )
)


class _HiddenSize:
    """A size in the memory of a `WatchedShape`, which code in C reads past its methods.

    It answers as an integer does, and notes that it was asked.
    """

    def __init__(self, size: int, note: Callable[[], None]) -> None:
        self.size, self.note = size, note


class WatchedShape(tuple[Any, ...]):
    """What ``tensor.shape`` gives while reads are noted: as `torch.Size`, which has no subclasses.

    Its rank is no size and may be asked for; a look at some sizes notes their axes, whatever else
    is done with it all. What it gives is plain.

    Args:
        sizes: the shape; symbolic sizes decide nothing unless torch.export itself notices.
        note: is given the axes that were read.
    """

    __class__: Any = torch.Size  # for isinstance
    _sizes: torch.Size
    _note: Note

    def __new__(cls, sizes: Iterable[Any] = (), note: Note | None = None) -> Any:
        """Return the shape; a plain one where code makes another of a shape's type."""
        plain = torch.Size(sizes)
        if note is None:
            return plain

        def hidden(axis: int, size: Any) -> Any:
            return _HiddenSize(size, lambda: note((axis,))) if isinstance(size, int) else size

        shape = super().__new__(cls, [hidden(axis, size) for axis, size in enumerate(plain)])
        shape._sizes, shape._note = plain, note
        return shape

    def __getitem__(self, place: Any) -> Any:
        """Return one size, or the plain shape of several."""
        axes = range(len(self))[place]
        self._note(axes if isinstance(axes, range) else (axes,))
        return self._sizes[place]

    def read(self) -> torch.Size:
        """Return the plain shape."""
        self._note(range(len(self)))
        return self._sizes


def _asks_shape(name: str) -> Any:
    def method(self: WatchedShape, *args: Any) -> Any:
        given = [arg.read() if type(arg) is WatchedShape else arg for arg in args]
        return getattr(self.read(), name)(*given)

    return method


def _asks_size(name: str) -> Any:
    def method(self: _HiddenSize, *args: Any) -> Any:
        self.note()
        return getattr(self.size, name)(*args)

    return method


for _name in {*dir(torch.Size), "__radd__"} - _PLAIN:
    setattr(WatchedShape, _name, _asks_shape(_name))
for _name in {name for name in dir(int) if name.startswith("__")} - _PLAIN:
    setattr(_HiddenSize, _name, _asks_size(_name))
