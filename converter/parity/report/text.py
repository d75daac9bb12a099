"""Render a parity report as text for a terminal: verdict, tables, problems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import JUDGED_MODES, ParityEntry
from mlxport.converter.terminal import cleaned_lines

_TITLES = {mode: mode.replace("_", " ") for mode in JUDGED_MODES}
_PROBLEMS = 8
_NUMBERS = ("error", "noise")


def render(
    verdict: str,
    tables: Sequence[Sequence[ParityEntry]],
    notes: Iterable[str],
    *,
    passed: bool,
    width: int,
    color: bool,
) -> str:
    """Return the verdict, the tables, the problems of what failed, why what was skipped, the notes.

    In a table a mode's column is the ratio of error to noise, the other numbers are those of the
    mode with the largest ratio.
    """
    page = StringIO()
    console = Console(
        file=page,
        width=width,
        color_system="standard" if color else None,
        highlight=False,
        emoji=False,
        markup=False,
    )
    rows = [entry for table in tables for entry in table]
    console.print(_text(verdict, style="bold green" if passed else "bold red"), soft_wrap=True)
    for table in filter(None, tables):
        console.print(_table(table))
    for line in [*_problems(rows), *_reasons(rows)]:
        console.print(_text(line), soft_wrap=True)
    if notes := list(notes):
        console.print(_text(" · ".join(notes), style="dim"), soft_wrap=True)
    return page.getvalue()


def _text(text: str, style: str = "") -> Text:
    """Return text from a report, which may be a stranger's, in a style of ours."""
    return Text(cleaned_lines(text), style=style)


def _table(rows: Sequence[ParityEntry]) -> Table:
    # a mode in which nothing was judged has no column; the reason is printed below the table
    modes = [mode for mode in JUDGED_MODES if any(mode in row.verdicts for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", overflow="fold", ratio=1)
    table.add_column("class", overflow="fold")
    table.add_column("shape", overflow="fold")
    for title in ("error", "noise", *(_TITLES[mode] for mode in modes)):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        worst = max(row.verdicts.values(), key=_severity, default=None)
        shape = "x".join(map(str, worst.shape)) if worst else ""
        numbers = [_number(getattr(worst, name, None)) for name in _NUMBERS]
        cells = [_cell(row, mode) for mode in modes]
        table.add_row(_text(row.label), _text(row.layer), shape, *numbers, *cells)
    return table


def _severity(verdict: Verdict) -> tuple[bool, float]:
    return not verdict.passed, verdict.ratio or 0.0


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}" if value else "0"


def _cell(row: ParityEntry, mode: str) -> Text:
    verdict = row.verdicts.get(mode)
    if verdict is None:
        return Text("skipped" if mode in row.skipped else "", style="yellow")
    times = "" if verdict.ratio is None else f"{verdict.ratio:.2g}x"
    if verdict.passed:
        return Text(times or "ok", style="green")
    return Text(f"FAIL {times}".rstrip(), style="bold red")


def _problems(rows: Sequence[ParityEntry]) -> list[str]:
    """List the problems; only the first few, as one fault shows in all layers after it."""
    found = [
        f"{row.label}, {_TITLES[mode]}: {problem}"
        for row in rows
        for mode in row.failing
        for problem in row.verdicts[mode].problems
    ]
    rest = len(found) - _PROBLEMS
    return found[:_PROBLEMS] + ([f"and {rest} more problems"] if rest > 0 else [])


def _reasons(rows: Sequence[ParityEntry]) -> list[str]:
    """Say why something was skipped, each reason once."""
    places: dict[str, list[str]] = {}
    for row in rows:
        for mode, reason in row.skipped.items():
            places.setdefault(f"not judged {_TITLES[mode]}, {reason}", []).append(row.label)
    return [
        f"{reason}: {', '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''}"
        for reason, found in places.items()
    ]
