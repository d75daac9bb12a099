"""How messages name an argument: as a keyword of Python, or as the command line spells it.

Needs the standard library alone. ``argument("overwrite", True)`` in a message reads
``overwrite=True`` to who calls the library; the command line says what its own flags are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

# Called with a keyword of the public functions, and a tuple that holds the value meant, if any.
Spelling: TypeAlias = Callable[[str, tuple[Any, ...]], str]


def as_keyword(name: str, value: tuple[Any, ...] = ()) -> str:
    """Return ``name=``, or ``name=value`` as Python writes it."""
    return f"{name}={', '.join(map(repr, value))}"


_spelling: ContextVar[Spelling] = ContextVar("spelling", default=as_keyword)


def argument(name: str, *value: Any) -> str:
    """Return how to speak of an argument to whoever reads the message.

    Args:
        name: the keyword, as the public function has it.
        *value: the one value meant; none to speak of the argument whatever its value.
    """
    return _spelling.get()(name, value)


@contextmanager
def spelled(spelling: Spelling) -> Iterator[None]:
    """Let all messages made within name arguments in another way.

    Args:
        spelling: given a keyword and a tuple of the value or nothing, the text for it.
    """
    token = _spelling.set(spelling)
    try:
        yield
    finally:
        _spelling.reset(token)
