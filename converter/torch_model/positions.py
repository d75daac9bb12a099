"""Where iterators and open files stand, for those that can be set back."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

_logger = logging.getLogger(__name__)

_ITERATORS: tuple[type, ...] = (
    type(iter([])),
    type(reversed([])),
    type(iter(())),
    type(iter("")),
    type(iter(b"")),
)
POSITIONED = (*_ITERATORS, io.IOBase)


class PositionState:
    """How far an iterator over a sequence, or a file that is only read, has been read.

    One that has come to its end has let go of its sequence and cannot be set back, nor can what
    generates its items.
    """

    def __init__(self, reader: Any) -> None:
        self._reader, self._before = reader, _position(reader)

    def changes(self, label: str) -> Iterator[str]:
        """Yield the label, if it was read on."""
        if _position(self._reader) != self._before:
            yield label

    def restore(self) -> None:
        """Set it back."""
        if self._before is None or _position(self._reader) == self._before:
            return
        if isinstance(self._reader, io.IOBase):
            self._reader.seek(self._before)
        else:
            self._reader.__setstate__(self._before)


def _position(reader: Any) -> int | None:
    """Return how far a reader is; None where that cannot be told."""
    if isinstance(reader, _ITERATORS):
        state = reader.__reduce__()[2:]
        return int(state[0]) if state else None
    try:
        only_read = reader.readable() and reader.seekable() and not reader.writable()
        return int(reader.tell()) if only_read else None
    except (OSError, ValueError) as error:  # it is closed, or read line by line
        _logger.debug("%r has no position: %s", reader, error)
        return None
