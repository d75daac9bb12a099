"""How the benchmarks measure: side by side, in one run, the least of several times."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Run = Callable[[], Any]


def side_by_side(runs: Mapping[str, Run], seconds: float = 1.0, least: int = 3) -> dict[str, float]:
    """Time several ways to do the same, in turn, and return the least time of each in seconds.

    What disturbs the machine disturbs all of them; the least time is the least disturbed.

    Args:
        runs: what to call, by name; each call does all its work before it returns.
        seconds: roughly how long all of them may take.
        least: how many rounds there are at least, after one that is not counted.
    """
    for run in runs.values():
        run()
    gc.collect()
    gc.disable()  # as timeit does: collections strike whichever is running
    try:
        return _least(runs, seconds, least)
    finally:
        gc.enable()


def _least(runs: Mapping[str, Run], seconds: float, least: int) -> dict[str, float]:
    times: dict[str, float] = dict.fromkeys(runs, float("inf"))
    start = time.perf_counter()
    rounds = 0
    while rounds < least or time.perf_counter() - start < seconds:
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            times[name] = min(times[name], time.perf_counter() - begun)
        rounds += 1
    return times


@dataclass(frozen=True)
class Table:
    """A table of results, in Markdown.

    Attributes:
        title: its heading.
        text: what was measured and how to read it.
        head: the names of the columns.
        rows: the cells, as text.
    """

    title: str
    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return heading, text and table."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"## {self.title}\n\n{self.text}\n\n{table}\n"


def milliseconds(seconds: float) -> str:
    """Return a time as a table has it."""
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def times(ratio: float) -> str:
    """Return a ratio as a table has it."""
    return f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x"
