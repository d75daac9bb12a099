"""Render parity reports as a page in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mlxport.converter.parity.report.table import BAD, Table, tables_of

if TYPE_CHECKING:
    from mlxport.converter.parity.report.report import ParityReport


def markdown(reports: Mapping[str, ParityReport]) -> str:
    """Return verdicts, table, problems and environment of one report or several side by side."""
    lines = ["# Parity", ""]
    for name, report in reports.items():
        sentence = _escaped(report.verdict.replace("\n", " "))
        lines += [f"**{_escaped(name)}**: {sentence}" if len(reports) > 1 else sentence, ""]
    for table in tables_of({name: report.decisive for name, report in reports.items()}):
        lines += _section(table)
    for name, report in reports.items():
        facts = ", ".join(f"{key} {value}" for key, value in report.environment.items())
        facts += f"; {report.decisive.dynamo}" if report.decisive.dynamo else ""
        lines += ["", f"{_escaped(name)}: {_escaped(facts)}" if len(reports) > 1 else facts]
        metal = report.metal.sentences() if report.metal else ()
        lines += ["", *(f"- {_escaped(line)}" for line in metal)] if metal else []
    return "\n".join(lines).rstrip() + "\n"


def _section(table: Table) -> list[str]:
    lines = [f"## {table.title}", "", _line(("layer", "class", "shape", *table.columns))]
    lines.append(_line(["---"] * 3 + ["---:"] * len(table.columns)))
    for row in table.rows:
        cells = [cell.text for cell in row.cells]
        lines.append(_line((_escaped(row.label), _escaped(row.layer), row.shape, *cells)))
    problems = [
        f"- {_escaped(row.label)}, {column}: {_escaped(cell.why)}"
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.state == BAD
    ]
    return [*lines, "", *problems, *([""] if problems else [])]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    for sign in ("\\", "|", "*", "_", "`", "<"):
        text = text.replace(sign, f"\\{sign}")
    return text
