"""Render a parity report as a few lines of HTML, for a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from mlxport.converter.parity.report.table import BAD, Cell, tables_of
from mlxport.converter.parity.report.text import pass_or_fail, worst

if TYPE_CHECKING:
    from mlxport.converter.parity.report.report import ParityReport

_COLOURS = {True: "#0072b2", False: "#d55e00"}


def notebook_html(report: ParityReport) -> str:
    """Return the verdict and the worst layers.

    Args:
        report: of one run or several; the first that failed is shown.
    """
    run = report.decisive
    colour = _COLOURS[report.passed]
    verdict = escape(report.verdict).replace("\n", "<br>")
    parts = [
        f'<div style="border-left:.4em solid {colour};padding:.2em .8em">'
        f"<strong>{pass_or_fail(report.passed)}, {escape(report.model)}</strong>: {verdict}</div>"
    ]
    shown = (*worst(run.entries), *run.outputs)
    table = tables_of({"": replace(run, entries=shown, others=())})[1]
    count = table.columns.index("error") + 1  # modes and error; the rest is on the page
    head = ("layer", "class", "shape", *table.columns[:count])
    rows = [_row("th", map(escape, head))]
    for row in table.rows:
        names = map(escape, (row.label, row.layer, row.shape))
        rows.append(_row("td", (*names, *map(_cell, row.cells[:count]))))
    return "\n".join([*parts, f"<table>{''.join(rows)}</table>"])


def _row(kind: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{kind}>{cell}</{kind}>' for cell in cells)}</tr>"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return f"<strong>{text}</strong>" if cell.state == BAD else text
