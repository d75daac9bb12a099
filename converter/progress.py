"""How far weights have come, told to whoever wants to know.

Needs the standard library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

# Called with how many bytes were written so far and how many there will be in all.
Listener: TypeAlias = Callable[[int, int], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Let ``listener`` know how far weights have come, as long as this lasts."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def advance(done: int, total: int) -> None:
    """Tell how many bytes are written, of how many."""
    if listener := _listener.get():
        listener(done, total)
