"""Render parity reports as a page in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlxport.converter.parity.report.table import BAD, Table, tables_of
from mlxport.converter.parity.report.text import worst

if TYPE_CHECKING:
    from mlxport.converter.parity.report.report import ParityReport


def markdown(reports: Mapping[str, ParityReport]) -> str:
    """Return verdicts, table, problems and environment of one report or several side by side."""
    lines = ["# Parity", ""]
    for name, report in reports.items():
        sentence = escaped(report.verdict.replace("\n", " "))
        lines += [f"**{escaped(name)}**: {sentence}" if len(reports) > 1 else sentence, ""]
    for table in tables_of({name: report.decisive for name, report in reports.items()}):
        lines += _section(table)
    for name, report in reports.items():
        facts = ", ".join(f"{key} {value}" for key, value in report.environment.items())
        facts += f"; {report.decisive.dynamo}" if report.decisive.dynamo else ""
        lines += ["", f"{escaped(name)}: {escaped(facts)}" if len(reports) > 1 else facts]
        metal = report.metal.sentences() if report.metal else ()
        lines += ["", *(f"- {escaped(line)}" for line in metal)] if metal else []
    return "\n".join(lines).rstrip() + "\n"


def worst_tables(report: ParityReport) -> list[str]:
    """Return the lines of the tables of a report's outputs and of the layers farthest off.

    Args:
        report: of one run or several; the first that failed is shown.
    """
    run = report.decisive
    shown = replace(run, entries=tuple(worst(run.entries)), gradients=(), others=())
    found = [table for table in tables_of({"": shown}) if table.rows]
    lines = []
    for table in found:
        kept = table.columns.index("noise") + 1
        rows = tuple(replace(row, cells=row.cells[:kept]) for row in table.rows)
        more = table.title == "Layers" and len(run.entries) > len(rows)
        title = f"The worst {len(rows)} of {len(run.entries)} layer calls" if more else table.title
        lines += _section(replace(table, title=title, columns=table.columns[:kept], rows=rows))
    return lines


def _section(table: Table) -> list[str]:
    lines = [f"## {table.title}", "", _line(("layer", "class", "shape", *table.columns))]
    lines.append(_line(["---"] * 3 + ["---:"] * len(table.columns)))
    for row in table.rows:
        cells = [cell.text for cell in row.cells]
        lines.append(_line((escaped(row.label), escaped(row.layer), row.shape, *cells)))
    problems = [
        f"- {escaped(row.label)}, {column}: {escaped(cell.why)}"
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.state == BAD
    ]
    return [*lines, "", *problems, *([""] if problems else [])]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Return text in which Markdown's signs are characters."""
    for sign in ("\\", "|", "*", "_", "`", "<"):
        text = text.replace(sign, f"\\{sign}")
    return text
