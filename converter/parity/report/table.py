"""Lay parity reports out as tables of text, for the pages in Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import JUDGED_MODES, ParityEntry

if TYPE_CHECKING:
    from mlxport.converter.parity.report.report import ParityReport

GOOD, BAD, NONE = "good", "bad", "none"


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says.
        state: ``good``, ``bad``, or ``none`` for what is no verdict.
        why: the problems, or why there is no verdict.
        value: the number behind it, to sort by; None where there is none.
    """

    text: str
    state: str = NONE
    why: str = ""
    value: float | None = None


@dataclass(frozen=True)
class TableRow:
    """What one tensor's line shows.

    Attributes:
        label: the layer, or the output of the model.
        layer: name of the MLX class.
        shape: PyTorch's.
        cells: in the order of the columns.
    """

    label: str
    layer: str
    shape: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A title, columns by their titles, and rows.

    Attributes:
        title: what the rows are.
        columns: the titles of the rows' cells.
        rows: in the order computed.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def tables_of(reports: Mapping[str, ParityReport]) -> tuple[Table, ...]:
    """Lay out outputs, layers and, where there are any, gradients.

    Of one report in full, of several the worst ratio of each.

    Args:
        reports: by what to call them; of one and the same model.
    """
    parts = {
        "Outputs": {name: report.outputs for name, report in reports.items()},
        "Layers": {name: r.entries for name, r in reports.items()},
    }
    gradients = {name: report.gradients for name, report in reports.items()}
    parts |= {"Gradients": gradients} if any(gradients.values()) else {}
    return tuple(
        _whole(title, *entries.values()) if len(reports) == 1 else _beside(title, entries)
        for title, entries in parts.items()
    )


def _whole(title: str, entries: Sequence[ParityEntry]) -> Table:
    modes = [mode for mode in JUDGED_MODES if any(mode in entry.verdicts for entry in entries)]
    columns = (*(mode.replace("_", " ") for mode in modes), *_NUMBERS)
    rows = []
    for entry in entries:
        worst = _worst(entry)
        numbers = _numbers(worst) if worst else (Cell("-"),) * len(_NUMBERS)
        rows.append(_row(entry, (*(_cell(entry, (mode,)) for mode in modes), *numbers)))
    return Table(title, columns, tuple(rows))


_NUMBERS = ("error", "noise", "max abs", "max ULP", "1 - cosine", "SNR", "not finite", "first at")

# what stands back where there is no room
DETAILS = frozenset(_NUMBERS[1:])


def _numbers(verdict: Verdict) -> tuple[Cell, ...]:
    """Return the cells under the titles of ``_NUMBERS``."""
    apart = None if verdict.cosine is None else max(1 - verdict.cosine, 0.0)
    decibels, first = verdict.snr_db, verdict.first
    return (
        _number(verdict.error),
        _number(verdict.noise),
        _number(verdict.max_abs),
        _number(verdict.max_ulp, ".3g"),
        _number(apart),
        Cell("-" if decibels is None else f"{decibels:.0f} dB", value=decibels),
        Cell(f"{verdict.nonfinite:,}", value=float(verdict.nonfinite)),
        Cell("-" if first is None else ", ".join(map(str, first))),
    )


def _beside(title: str, reports: Mapping[str, Sequence[ParityEntry]]) -> Table:
    found: dict[tuple[str, int, int], dict[str, ParityEntry]] = {}
    for name, entries in reports.items():
        for entry in entries:
            found.setdefault((entry.path, entry.call, entry.output), {})[name] = entry
    absent = Cell("-", why="not in this report")
    rows = [
        _row(
            max(entries.values(), key=lambda entry: entry.ratio),
            tuple(
                _cell(entries[name], JUDGED_MODES) if name in entries else absent
                for name in reports
            ),
        )
        for entries in found.values()
    ]
    return Table(title, tuple(reports), tuple(rows))


def _row(entry: ParityEntry, cells: tuple[Cell, ...]) -> TableRow:
    worst = _worst(entry)
    shape = "x".join(map(str, worst.shape)) if worst else ""
    return TableRow(entry.label, entry.layer, shape, cells)


def _worst(entry: ParityEntry) -> Verdict | None:
    return max(entry.verdicts.values(), key=lambda v: (not v.passed, v.ratio or 0.0), default=None)


def _cell(entry: ParityEntry, modes: Sequence[str]) -> Cell:
    """Return the cell of an entry for some modes: the worst of their verdicts."""
    verdicts = {mode: entry.verdicts[mode] for mode in modes if mode in entry.verdicts}
    if not verdicts:
        reasons = [entry.skipped[mode] for mode in modes if mode in entry.skipped]
        return Cell("skipped" if reasons else "", why="; ".join(dict.fromkeys(reasons)))
    worst = max(verdicts.values(), key=lambda v: (not v.passed, v.ratio or 0.0))
    ratio = "" if worst.ratio is None else f"{worst.ratio:.2g}x"
    if worst.passed:
        return Cell(ratio or "ok", GOOD, value=worst.ratio)
    return Cell(f"FAIL {ratio}".rstrip(), BAD, "; ".join(worst.problems), worst.ratio)


def _number(value: float | None, form: str = ".1e") -> Cell:
    return Cell("-" if value is None else f"{value:{form}}" if value else "0", value=value)
