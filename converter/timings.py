"""How long the stages of a conversion take: counted by a clock, logged as each one ends.

Needs the standard library alone. A stage costs a few microseconds; where nothing measures and
nobody listens to the log, none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar

_P = ParamSpec("_P")
_Result = TypeVar("_Result")
_Path = tuple[str, ...]

_OTHER = "other"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timings:
    """What a conversion took, by stage.

    Attributes:
        seconds: of the whole, on the wall clock.
        processor: seconds of processor time the process spent meanwhile, all threads together.
        stages: path of a stage (``("verify", "in place")``) -> its seconds on the wall clock, its
            parts included; in the order in which they began. Stages that run side by side count
            each, so that together they may take longer than the whole.
    """

    seconds: float
    processor: float
    stages: dict[_Path, float]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data; the parts of a stage are named ``"verify/in place"``."""
        return {
            "seconds": self.seconds,
            "processor_seconds": self.processor,
            "stages": {"/".join(path): seconds for path, seconds in self.stages.items()},
        }

    def to_text(self) -> str:
        """Return it as a table."""
        top = sum(seconds for path, seconds in self.stages.items() if len(path) == 1)
        rows = [("  " * (len(path) - 1) + path[-1], s) for path, s in self.stages.items()]
        if self.seconds > top:
            rows.append((_OTHER, self.seconds - top))
        rows.append(("in all", self.seconds))
        width = max(len(name) for name, _ in rows)
        lines = [f"{'stage':{width}}  {'s':>8}  {'share':>5}"]
        for name, seconds in rows:
            share = seconds / self.seconds if self.seconds else 0.0
            lines.append(f"{name:{width}}  {seconds:8.2f}  {share:5.0%}")
        return "\n".join([*lines, f"{self.processor:.2f} s of processor time"])


class Clock:
    """Counts the stages of one run."""

    def __init__(self) -> None:
        self.spent: dict[_Path, float] = {}
        self._begun, self._processor = time.perf_counter(), time.process_time()

    def timings(self) -> Timings:
        """Return what was spent since it was started."""
        seconds = time.perf_counter() - self._begun
        return Timings(seconds, time.process_time() - self._processor, self._in_order())

    def _in_order(self) -> dict[_Path, float]:
        """Return the stages, parts right after what they are parts of."""
        ordered: dict[_Path, float] = {}
        for path in self.spent:
            if len(path) == 1:
                ordered |= {p: s for p, s in self.spent.items() if p[0] == path[0]}
        return ordered


# Called with the path of a stage as it begins.
Watcher: TypeAlias = Callable[[tuple[str, ...]], None]

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
_clock: ContextVar[Clock | None] = ContextVar("clock", default=None)
_path: ContextVar[_Path] = ContextVar("path", default=())


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count what happens within as a stage, or as a part of the one around it, and log it.

    A stage that comes again adds up. Serves as a decorator too. Its end is logged at info, with
    its path (``verify/in place``) and duration.
    """
    clock, logged = _clock.get(), _logger.isEnabledFor(logging.INFO)
    watcher = _watcher.get()
    if clock is None and watcher is None and not logged:
        yield
        return
    path = (*_path.get(), name)
    if watcher is not None:
        watcher(path)
    if clock is not None:
        clock.spent.setdefault(path, 0.0)
    token = _path.set(path)
    begun, outcome = time.perf_counter(), "failed after"
    try:
        yield
        outcome = "took"
    finally:
        seconds = time.perf_counter() - begun
        if clock is not None:
            clock.spent[path] += seconds
        _path.reset(token)
        if logged:
            _logger.info("%s %s %.2f s", "/".join(path), outcome, seconds)


@contextmanager
def watching_stages(watcher: Watcher) -> Iterator[None]:
    """Let ``watcher`` know of each stage that begins, as long as this lasts."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def stages_of(name: str) -> Iterator[None]:
    """Tell the watcher of each stage whose it is: one of many that are worked on in turn."""
    if (watcher := _watcher.get()) is None:
        yield
        return
    with watching_stages(lambda path: watcher((f"{name}: {path[0]}", *path[1:]))):
        yield


def stages_are_watched() -> bool:
    """Whether somebody is told of each stage already."""
    return _watcher.get() is not None


@contextmanager
def measured() -> Iterator[Clock]:
    """Count the stages that happen within, in this thread and those that share its context."""
    clock = Clock()
    tokens = _clock.set(clock), _path.set(())
    try:
        yield clock
    finally:
        _clock.reset(tokens[0])
        _path.reset(tokens[1])


def timed(function: Callable[_P, _Result]) -> Callable[_P, _Result]:
    """Let a function give its result, a dataclass, with its ``timings``."""

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
        with measured() as clock:
            result: Any = function(*args, **kwargs)
        given: _Result = replace(result, timings=clock.timings())
        return given

    return run
