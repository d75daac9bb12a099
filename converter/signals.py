"""End a process that is asked to end as it ends otherwise: cleaning up. Standard library alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class EndedBySignal(BaseException):
    """The process was asked to end; what is unfinished is taken back on the way out."""


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind what runs within, then end the process as they would have.

    For a process of our own, in its main thread. A signal that is ignored, as under ``nohup``, or
    handled otherwise already stays as it is.
    """
    received: list[int] = []
    handled = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]

    def unwind(number: int, frame: FrameType | None) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_IGN)  # cleaning up is not interrupted
        received.append(number)
        raise EndedBySignal

    for number in handled:
        signal.signal(number, unwind)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        if received:
            os.kill(os.getpid(), received[0])
