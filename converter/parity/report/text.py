"""Render a parity report as text for a terminal: verdict, tables, problems.

As a summary it fits a terminal: no word is broken, names that are too long lose their middle, and
the verdict stands where the eye is, in the last line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import JUDGED_MODES, ParityEntry
from mlxport.converter.terminal import cleaned, cleaned_lines, fitted, least_width, shortened

_TITLES = {mode: mode.replace("_", " ") for mode in JUDGED_MODES}
_PROBLEMS = 8
_LAYER = 24  # columns that the name of a layer takes before its class is left out
_UNLIMITED = 100_000  # columns
_PAGE = "as a page: "
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


def render_summary(
    verdict: str,
    tables: Sequence[tuple[str, Sequence[ParityEntry]]],
    problems: Sequence[ParityEntry],
    notes: Iterable[str],
    *,
    page: str,
    passed: bool,
    width: int | None,
    color: bool,
) -> str:
    """Return titled tables, what failed and was skipped, the notes, and last the verdict.

    Args:
        verdict: in a sentence or some.
        tables: title -> rows, each table with columns of its own.
        problems: the entries whose problems are told.
        notes: one after the other.
        page: the path of the report as a page; empty where there is none.
        passed: colours the verdict.
        width: columns; None for no limit.
        color: with ANSI colours.
    """
    text = StringIO()
    width = width or _UNLIMITED
    color_system: Literal["standard"] | None = "standard" if color else None
    console = Console(file=text, width=width, color_system=color_system, highlight=False)
    for title, rows in tables:
        if rows:
            console.print(_text(title, style="bold"))
            console.print(_fitted_table(rows, width))
            console.print()
    lines = [*_problems(problems), *_reasons(problems)]
    for line in lines:
        _print_wrapped(console, line, width)
    if found := list(notes):
        _print_wrapped(console, " · ".join(found), width, style="dim")
    if page:
        where = shortened(cleaned(page), width - len(_PAGE))
        console.print(Text(f"{_PAGE}{where}"), soft_wrap=True)
    for line in verdict.split("\n"):
        _print_wrapped(console, line, width, style="bold green" if passed else "bold red")
    return text.getvalue()


def _print_wrapped(console: Console, text: str, width: int, style: str = "") -> None:
    words = (shortened(word, width - 2) for word in cleaned(text).split())
    for line in fitted(" ".join(words), width).split("\n"):
        console.print(Text(line, style=style), soft_wrap=True)


def _fitted_table(rows: Sequence[ParityEntry], width: int) -> Table:
    """Return a table in which names are shortened as far as they have to be."""
    modes = [mode for mode in JUDGED_MODES if any(mode in row.verdicts for row in rows)]
    titles = [*_NUMBERS, *(_TITLES[mode] for mode in modes)]
    numbers = [[*map(Text, _numbers(row)), *(_cell(row, mode) for mode in modes)] for row in rows]
    taken = sum(
        max(len(title), *(len(line[k]) for line in numbers)) + 2 for k, title in enumerate(titles)
    )
    names = [(row.label, row.layer, _shape(row)) for row in rows]
    widths = _widths(names, width - taken)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("layer", "class", "shape")[: len(widths)]:
        table.add_column(title, no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for texts, line in zip(names, numbers, strict=True):
        cells = (shortened(cleaned(t), w) for t, w in zip(texts, widths, strict=False))
        table.add_row(*map(Text, cells), *line)
    return table


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the widths of the columns of names: those left out that there is no room for."""
    columns = zip(("layer", "class", "shape"), zip(*rows, strict=True), strict=True)
    natural = [max(len(title), *map(len, column)) for title, column in columns]
    whole = max(least_width(cleaned(row[0])) for row in rows)
    for count, least in ((3, natural[0]), (2, min(natural[0], max(whole, _LAYER))), (1, 0)):
        rest = width - 2 * count - sum(natural[1:count])
        if rest >= least:
            break
    return [max(min(natural[0], rest), 1), *natural[1:count]]


def pass_or_fail(passed: bool) -> str:
    """Return the verdict in one word, as titles have it."""
    return "PASS" if passed else "FAIL"


def worst(rows: Sequence[ParityEntry], count: int = 5) -> list[ParityEntry]:
    """Return the entries farthest from their references: what failed, then the largest ratios."""
    return sorted(rows, key=lambda row: _severity_of(row), reverse=True)[:count]


def _severity_of(row: ParityEntry) -> tuple[bool, float]:
    return max(map(_severity, row.verdicts.values()), default=(False, 0.0))


def _shape(row: ParityEntry) -> str:
    found = max(row.verdicts.values(), key=_severity, default=None)
    return "x".join(map(str, found.shape)) if found else ""


def _numbers(row: ParityEntry) -> list[str]:
    found = max(row.verdicts.values(), key=_severity, default=None)
    return [_number(getattr(found, name, None)) for name in _NUMBERS]


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
        cells = [_cell(row, mode) for mode in modes]
        names = _text(row.label), _text(row.layer), _shape(row)
        table.add_row(*names, *_numbers(row), *cells)
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
    more = f"and {rest} more problem{'s' * (rest > 1)}"
    return found[:_PROBLEMS] + ([more] if rest > 0 else [])


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
