"""Report how far the writing of weights has come, to whoever listens.

Needs the standard library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

# Called with how many bytes were written so far and how many there will be in all.
Listener: TypeAlias = Callable[[int, int], None]

_Value = TypeVar("_Value")

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Let ``listener`` know how far weights have come, as long as this lasts."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def counted(
    pairs: Iterable[tuple[str, _Value]], sizes: Mapping[str, int]
) -> Iterator[tuple[str, _Value]]:
    """Yield the pairs, and tell how many bytes are done with as each next one is asked for.

    Args:
        pairs: names, and what is to be written under them.
        sizes: name -> its bytes, for all that are to come.
    """
    listener, done, total = _listener.get(), 0, sum(sizes.values())
    for name, value in pairs:
        if listener:
            listener(done, total)
        yield name, value
        done += sizes[name]
    if listener:
        listener(done, total)
