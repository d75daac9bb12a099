"""Show what a call is at: its stages with the time that passed, and how far weights have come."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlxport.converter.progress import listening
from mlxport.converter.timings import stages_are_watched, watching_stages


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


@contextmanager
def notebook_line(call: str) -> Iterator[None]:
    """Show under a notebook's cell what a call is at: one line, written over as it goes on.

    Nothing is shown outside a notebook, of a call inside another, and of one without stages.

    Args:
        call: name of the function.
    """
    publish = None if stages_are_watched() else _publish_in_notebook()
    if publish is None:
        yield
        return
    begun = time.perf_counter()
    written = False
    shown, at = "", ""
    display = {"display_id": uuid.uuid4().hex}

    def write(text: str) -> None:
        nonlocal written
        line = {"text/plain": f"{call}: {text}{time.perf_counter() - begun:.1f} s"}
        publish(line, transient=display, update=written)
        written = True

    def watch(path: tuple[str, ...]) -> None:
        nonlocal at
        at = ", ".join(path)
        write(f"{at}, ")

    def show(done: int, total: int) -> None:
        nonlocal shown
        percent = f"{at} {done / total if total else 1:.0%}, "
        if percent != shown:
            shown = percent
            write(percent)

    try:
        with watching_stages(watch), listening(show):
            yield
    finally:
        if written:
            write("")


def _publish_in_notebook() -> Callable[..., None] | None:
    """Return what shows data under the cell that runs, None outside a notebook.

    It is ``IPython.core.displaypub.DisplayPublisher.publish`` of the shell that runs this. IPython
    is there where a notebook runs, and nowhere else is it needed: it is not imported.
    """
    interactive = sys.modules.get("IPython")
    shell: Any = getattr(interactive, "get_ipython", lambda: None)()
    if not hasattr(shell, "kernel"):  # a terminal's shell has none
        return None
    publish: Callable[..., None] = shell.display_pub.publish
    return publish
