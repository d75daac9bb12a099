"""Show what a call is at: its stages with the time that passed, and how far weights have come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlxport.converter.progress import listening
from mlxport.converter.timings import watching_stages


@contextmanager
def progress_lines(write: Callable[[str], None]) -> Iterator[None]:
    """Write a line for each stage as it begins: for where no line can be written over.

    Args:
        write: takes one line.
    """
    begun, last = time.perf_counter(), ""

    def watch(path: tuple[str, ...]) -> None:
        nonlocal last
        if len(path) == 1 and path[0] != last:
            last = path[0]
            write(f"{time.perf_counter() - begun:7.1f} s  {last}")

    with watching_stages(watch):
        yield


@contextmanager
def progress_bar() -> Iterator[None]:
    """Show the stage and the time on stderr, which is a terminal, and a bar of weights written."""
    from rich.console import Console, RenderableType
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    class OfBytes(ProgressColumn):
        """Shows a bar and bytes, for a task that counts them."""

        def __init__(self, column: ProgressColumn) -> None:
            super().__init__()
            self._column = column

        def render(self, task: Task) -> RenderableType:
            return self._column.render(task) if task.total else Text()

    columns = [SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}")]
    counting = [OfBytes(BarColumn(20)), OfBytes(DownloadColumn())]
    with Progress(*columns, *counting, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def watch(path: tuple[str, ...]) -> None:
            bar.update(task, description=", ".join(path), total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        with watching_stages(watch), listening(show):
            yield
