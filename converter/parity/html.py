"""Parity reports as one self-contained page in HTML, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from mlxport.converter.parity.chart import chart
from mlxport.converter.parity.table import BAD, Cell, Row, Table, tables_of

if TYPE_CHECKING:
    from mlxport.converter.parity.report import ParityReport

_STYLE = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #cf222e; --line: #8884; --soft: #8881;
  --series-0: #0969da; --series-1: #bf8700; --series-2: #8250df; --series-3: #1b7c83; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #f85149;
  --series-0: #58a6ff; --series-1: #d29922; --series-2: #bc8cff; --series-3: #39c5cf; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.verdict { border-left: .4rem solid var(--good); background: var(--soft); padding: .8rem 1rem;
  margin: 1rem 0; overflow-wrap: anywhere; white-space: pre-line; }
.verdict.bad { border-color: var(--bad); }
.wide { overflow-x: auto; } svg { display: block; width: 100%; min-width: 40rem; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
td:first-child { overflow-wrap: anywhere; white-space: normal; min-width: 10rem; }
thead th { position: sticky; top: 0; background: Canvas; }
td.good { color: var(--good); } td.bad { color: var(--bad); font-weight: 700; }
.problems { color: var(--bad); } dl { display: grid; grid-template-columns: max-content 1fr;
  gap: .1rem 1rem; } dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: .8rem; } dl { grid-template-columns: 1fr; }
  :is(th, td):is(:nth-child(2), :nth-child(3)) { display: none; } }
"""


def html(reports: Mapping[str, ParityReport]) -> str:
    """Return a page with verdicts, chart, table, problems and environment.

    It loads nothing from elsewhere: style and picture are in it.

    Args:
        reports: by what to call them; one, or several of the same model side by side.
    """
    tables = tables_of(reports)
    passed = all(report.passed for report in reports.values())
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Parity {'holds' if passed else 'failed'}</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Parity of the MLX model with PyTorch</h1>",
        *(_verdict(name, report, len(reports) > 1) for name, report in reports.items()),
        "<h2>Error of each layer, as a multiple of PyTorch's own noise</h2>",
        f'<div class="wide">{chart(reports)}</div>',
        *map(_table, tables),
        _problems(tables),
        *(_environment(name, report, len(reports) > 1) for name, report in reports.items()),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _verdict(name: str, report: ParityReport, named: bool) -> str:
    title = f"<strong>{escape(name)}</strong>: " if named else ""
    state = "" if report.passed else " bad"
    return f'<p class="verdict{state}">{title}{escape(report.verdict)}</p>'


def _table(table: Table) -> str:
    titles = ("layer", "class", "shape", *table.columns)
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "\n".join(_row(row) for row in table.rows)
    return (
        f"<h2>{escape(table.title)}</h2>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>'
        "</table></div>"
    )


def _row(row: Row) -> str:
    first = "".join(f"<td>{escape(text)}</td>" for text in (row.label, row.layer, row.shape))
    return f"<tr>{first}{''.join(map(_cell, row.cells))}</tr>"


def _cell(cell: Cell) -> str:
    why = f' title="{escape(cell.why, quote=True)}"' if cell.why else ""
    return f'<td class="{cell.state}"{why}>{escape(cell.text)}</td>'


def _problems(tables: Sequence[Table]) -> str:
    items = [
        f"<li>{escape(row.label)}, {escape(column)}: {escape(cell.why)}</li>"
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.state == BAD
    ]
    return f'<h2>Problems</h2><ul class="problems">{"".join(items)}</ul>' if items else ""


def _environment(name: str, report: ParityReport, named: bool) -> str:
    facts = {
        "dtype": report.dtype,
        "reference": report.reference_dtype + (f" ({report.fallback})" * bool(report.fallback)),
        "passes": f"at most {report.noise_multiple:g} times the noise",
        **report.environment,
    }
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(v)}</dd>" for key, v in facts.items())
    title = f"Environment of {escape(name)}" if named else "Environment"
    return f"<h2>{title}</h2><dl>{items}</dl>"
