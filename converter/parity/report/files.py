"""Read parity reports from disk, and write them as JSON, Markdown or HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.writing.atomic import replace_text
from mlxport.converter.errors import (
    ConversionError,
    EvidenceError,
    OptionsError,
)
from mlxport.converter.parity.report.html import html
from mlxport.converter.parity.report.markdown import markdown
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.plan.json_data import read_json

REPORT = "parity.json"
FORMATS = (".html", ".md", ".json")


def read_reports(sources: Sequence[Path]) -> dict[str, ParityReport]:
    """Read reports, by names that tell them apart.

    Args:
        sources: files of reports as JSON, or output folders with a ``parity.json``.

    Raises:
        EvidenceError: a file cannot be read or holds no report; all of them are listed.
        OptionsError: one file is given twice.
    """
    paths = [path / REPORT if path.is_dir() else path for path in sources]
    if len({path.resolve() for path in paths}) < len(paths):
        raise OptionsError(f"a report is given twice: {', '.join(map(str, paths))}")
    reports: dict[str, ParityReport] = {}
    problems = []
    for name, path in zip(_names(paths), paths, strict=True):
        try:
            reports[name] = ParityReport.from_json(read_json(path))
        except (OSError, ConversionError) as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise EvidenceError.listing("these parity reports cannot be read:", problems)
    return reports


def page(reports: Mapping[str, ParityReport], kind: str) -> str:
    """Return one report, or several side by side, as a page.

    Args:
        reports: by what to call them.
        kind: the suffix of its file: ``.html``, ``.md`` or ``.json``. Several reports in JSON are
            an object, a report under each name.
    """
    if kind == ".html":
        return html(reports)
    if kind == ".md":
        return markdown(reports)
    data = {name: report.to_json() for name, report in reports.items()}
    whole = next(iter(data.values())) if len(data) == 1 else data
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def write_page(path: Path, reports: Mapping[str, ParityReport], *, overwrite: bool = False) -> None:
    """Write a page, of the kind that its file's suffix names: whole, or not at all.

    Raises:
        OptionsError: there is no such kind of page, no such folder, or the file is there and may
            not be replaced.
        CheckpointError: the file cannot be written.
    """
    check_page(path, overwrite=overwrite)
    replace_text(path, page(reports, path.suffix))


def check_page(path: Path, *, overwrite: bool = False) -> None:
    """Find out whether a page may be written there, before there is one.

    Raises:
        OptionsError: as for `write_page`.
    """
    if path.suffix not in FORMATS:
        raise OptionsError(
            f"a report is written as {', '.join(FORMATS)}, not as {path.suffix or path.name}"
        )
    if not path.parent.is_dir():
        raise OptionsError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise OptionsError(f"{path} is a folder: name a file in it")
    if path.exists() and not overwrite:
        raise OptionsError(f"{path} exists; pass {argument('overwrite', True)} to replace it")


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the files' stems where they tell them apart, their folders' names or else paths."""
    for names in ([path.stem for path in paths], [path.resolve().parent.name for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
