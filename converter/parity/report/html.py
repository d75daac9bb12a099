"""Render parity reports as one self-contained page in HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from mlxport.converter.environment import FAST_MATH
from mlxport.converter.parity.report.chart import chart, legend
from mlxport.converter.parity.report.images import figures, histograms
from mlxport.converter.parity.report.style import SCRIPT, STYLE
from mlxport.converter.parity.report.table import BAD, DETAILS, Cell, Table, TableRow, tables_of
from mlxport.converter.parity.report.text import pass_or_fail

if TYPE_CHECKING:
    from mlxport.converter.parity.report.report import ParityReport


# of the environment, what is shown beside the verdict
_WHERE = ("backend", "device", "mlx", "reference torch", *FAST_MATH)


def html(reports: Mapping[str, ParityReport]) -> str:
    """Return a page with verdicts, chart, tables, problems, pictures and environment.

    It loads nothing from elsewhere: style, pictures and a script that sorts the tables are in it.
    Without the script the page is complete, only not sortable. Of a report with several runs the
    first that failed is shown, or the example's.

    Args:
        reports: by what to call them; one, or several of the same model side by side.
    """
    shown = {name: report.decisive for name, report in reports.items()}
    several = len(reports) > 1
    tables = tables_of(shown)
    model = next(iter(reports.values())).model
    passed = all(report.passed for report in reports.values())
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{pass_or_fail(passed)}: {escape(model)}, parity of MLX with PyTorch</title>",
        f"<style>{STYLE}</style></head><body><main>",
        f"<h1>{_class_name(model)} in MLX, held to PyTorch</h1>",
        *(_verdict(name, report, several) for name, report in reports.items()),
        *(_runs(name, report, several) for name, report in reports.items()),
        "<h2>Error of each layer beside PyTorch's own noise</h2>",
        _scrolling("Chart", chart(shown)),
        legend(list(shown)),
        *(_pictures(name, report, several) for name, report in shown.items()),
        *map(_table, tables),
        _problems(tables),
        *(_environment(name, report, several) for name, report in shown.items()),
        f"</main><script>{SCRIPT}</script></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _name(text: str) -> str:
    """Return a name that breaks at its dots."""
    return escape(text).replace(".", ".<wbr>")


def _class_name(text: str) -> str:
    """Return the name of a class that breaks before its capitals."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "<wbr>", escape(text))


def _verdict(name: str, report: ParityReport, named: bool) -> str:
    title = f"{pass_or_fail(report.passed)}, {report.model}" + (f", {name}" if named else "")
    state = "" if report.passed else " bad"
    known = [(name, report.environment.get(name)) for name in _WHERE]
    where = ", ".join(f"{name} {value}" for name, value in known if value)
    where = "; ".join(filter(None, [where, report.decisive.dynamo]))
    return (
        f'<p class="verdict{state}"><strong>{escape(title)}</strong>: '
        f"{escape(report.verdict)}</p>"
        f'<p class="where">{escape(where)}</p>'
    )


def _runs(name: str, report: ParityReport, named: bool) -> str:
    """List what was tried besides the example."""
    if not report.others:
        return ""
    runs = (report, *report.others)
    items = "".join(
        f"<li>{escape(run.conditions or 'example inputs')}: "
        f"{'holds' if run.run_passed else '<strong>FAILED</strong>'}, worst "
        f"{run.worst_ratio:.2g}x</li>"
        for run in runs
    )
    return f"<h2>Runs{f' of {escape(name)}' if named else ''}</h2><ul>{items}</ul>"


def _scrolling(name: str, content: str) -> str:
    """Return content that scrolls by itself where the window is narrow, by keyboard too."""
    attributes = f'class="wide" role="region" aria-label="{escape(name)}" tabindex="0"'
    return f"<div {attributes}>{content}</div>"


def _table(table: Table) -> str:
    titles = ("#", "layer", "class", "shape", *table.columns)
    head = "".join(f'<th scope="col"{_detail(title)}>{escape(title)}</th>' for title in titles)
    numbered = [*enumerate(table.rows)]
    failing_first = sorted(numbered, key=lambda one: not _fails(one[1]))
    body = "\n".join(_row(row, number, table.columns) for number, row in failing_first)
    return f"<h2>{escape(table.title)}</h2>" + _scrolling(
        table.title,
        f'<table class="cells"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>',
    )


def _fails(row: TableRow) -> bool:
    return any(cell.state == BAD for cell in row.cells)


def _detail(title: str) -> str:
    return f' class="{_kind(title)}"' if _kind(title) else ""


def _kind(title: str) -> str:
    """Return what a column is where there is little room: ``error`` stays longer than the rest."""
    return "detail" if title in DETAILS else "error" if title == "error" else ""


def _row(row: TableRow, number: int, columns: Sequence[str]) -> str:
    first = f"<td{_value(row.layer)}>{_class_name(row.layer)}</td>"
    first += f"<td{_value(row.shape)}>{escape(row.shape)}</td>"
    name = f'<th scope="row"{_value(row.label)}>{_name(row.label)}</th>'
    cells = "".join(map(_cell, row.cells, columns))
    return f'<tr><td data-value="{number}">{number + 1}</td>{name}{first}{cells}</tr>'


def _cell(cell: Cell, column: str) -> str:
    why = f' title="{escape(cell.why, quote=True)}"' if cell.why else ""
    value = "" if cell.value is None else _value(repr(cell.value).replace("inf", "1e999"))
    kind = f"{cell.state} {_kind(column)}".rstrip()
    return f'<td class="{kind}"{why}{value}>{escape(cell.text)}</td>'


def _value(text: str) -> str:
    return f' data-value="{escape(text, quote=True)}"'


def _problems(tables: Sequence[Table]) -> str:
    items = [
        f"<li>{escape(row.label)}, {escape(column)}: {escape(cell.why)}</li>"
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.state == BAD
    ]
    return f'<h2>Problems</h2><ul class="problems">{"".join(items)}</ul>' if items else ""


def _pictures(name: str, report: ParityReport, named: bool) -> str:
    of = f" of {escape(name)}" if named else ""
    parts = []
    if report.pictures:
        parts += [f"<h2>Outputs{of}, side by side</h2>", figures(report.pictures)]
    if report.histograms:
        parts += [f"<h2>Histograms{of} of the error</h2>", histograms(report.histograms)]
    return "\n".join(parts)


def _environment(name: str, report: ParityReport, named: bool) -> str:
    facts = {
        "dtype": report.dtype,
        "reference": report.reference_dtype + (f" ({report.fallback})" * bool(report.fallback)),
        "passes": f"at most {report.noise_multiple:g} times the noise",
        **report.environment,
    }
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(v)}</dd>" for key, v in facts.items())
    title = f"Environment of {escape(name)}" if named else "Environment"
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.remarks)
    return f"<h2>{title}</h2><dl>{items}</dl>" + (f"<ul>{notes}</ul>" if notes else "")
