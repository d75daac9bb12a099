"""Convert many sources into a folder of output folders, one plan for those of one architecture."""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.errors import CheckpointError, ConversionError, OptionsError
from mlxport.converter.model_folders.find_models import find_models
from mlxport.converter.model_folders.found_model import FoundModel
from mlxport.converter.output.contents import read_conversion
from mlxport.converter.parity.report.files import REPORT, read_reports, write_page
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.plan.json_data import to_data
from mlxport.converter.plan.record import RECORD_FILE
from mlxport.converter.tasks.result import Converted
from mlxport.converter.timings import stages_of

_logger = logging.getLogger(__name__)

# Given the source, where to write it, and the output folder whose plan is to be used, if any.
Convert = Callable[["Job", Path, Path | None], Converted]


@dataclass(frozen=True)
class Job:
    """One checkpoint to convert.

    Attributes:
        source: a file or folder.
        found: the model that it describes; None where it describes none, or none was looked for.
        architecture: equal where one plan serves; empty where that is not known.
    """

    source: Path
    found: FoundModel | None = None
    architecture: str = ""


@dataclass(frozen=True)
class ConvertedOne:
    """What became of one of many sources.

    Attributes:
        name: of its output folder.
        source: where it is.
        how: ``converted``, ``by the plan of NAME``, ``there already``, or ``failed``.
        passed: whether parity holds; None where it was not judged.
        verdict: of the parity report, or why it failed or was not judged.
        seconds: it took.
        understood: what the folder says it holds; empty where it says nothing.
    """

    name: str
    source: str
    how: str
    passed: bool | None
    verdict: str
    seconds: float
    understood: str = ""


@dataclass(frozen=True)
class ConvertedMany:
    """What became of many sources.

    Attributes:
        rows: one each, in the order in which they were given.
        reports: name -> the parity report, of those that have one.
    """

    rows: tuple[ConvertedOne, ...]
    reports: Mapping[str, ParityReport] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of those that could not be converted."""
        return tuple(row.name for row in self.rows if row.how == "failed")

    @property
    def strayed(self) -> tuple[str, ...]:
        """Names of those whose parity does not hold."""
        return tuple(row.name for row in self.rows if row.passed is False)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the rows as JSON data."""
        return [to_data(row) for row in self.rows]

    def __str__(self) -> str:
        """Return the table: name, what was done, whether parity holds, and why not."""
        words = {True: "parity holds", False: "parity fails", None: "not judged"}
        cells = [
            (row.name, row.how, "-" if row.how == "failed" else words[row.passed], row.verdict)
            for row in self.rows
        ]
        widths = [max((len(row[i]) for row in cells), default=0) for i in range(3)]
        lines = []
        for (*short, verdict), row in zip(cells, self.rows, strict=True):
            columns = [text.ljust(width) for text, width in zip(short, widths, strict=True)]
            lines.append("  ".join([*columns, f"{row.seconds:.1f} s"]))
            if row.understood:
                lines.append(f"    {row.understood}")
            if not row.passed:
                lines += [f"    {line}" for line in verdict.splitlines()]
        return "\n".join(lines)


def jobs_of(sources: Sequence[str | Path], *, described: bool) -> dict[str, Job]:
    """Return name -> what to convert.

    Args:
        sources: files, folders, patterns of them (``runs/*/best.pt``), and ``.txt`` files that
            name one a line.
        described: look for what folders say of themselves: a folder of several models is one job
            each.

    Raises:
        OptionsError: a pattern fits nothing, or a file of sources cannot be read.
    """
    paths = [path for source in sources for path in _listed(str(source))]
    if not paths:
        raise OptionsError(f"no source in {', '.join(map(str, sources))}")
    parts = [_parts(path) if described else {"": Job(path)} for path in paths]
    names = _names(paths)
    if len(paths) == 1 and len(parts[0]) > 1:
        return parts[0]
    return {
        f"{name}-{part}" if part else name: job
        for name, jobs in zip(names, parts, strict=True)
        for part, job in jobs.items()
    }


def convert_many(
    jobs: Mapping[str, Job], output: Path, convert: Convert, *, overwrite: bool
) -> ConvertedMany:
    """Convert one after the other, go on after one that fails, and write one report of all.

    A folder that is there and holds the same source is left; so is every folder that was written
    before an interruption.

    Args:
        jobs: name -> what to convert.
        output: the folder for the output folders.
        convert: converts one.
        overwrite: convert anew what is there.
    """
    if (output / RECORD_FILE).exists():
        raise OptionsError(f"{output} is the output of one conversion: name another folder")
    plans: dict[str, str] = {}
    rows, reports = [], {}
    for name, job in jobs.items():
        begun = time.perf_counter()
        try:
            with stages_of(name):
                how, report = _converted(name, job, output, convert, plans, overwrite)
            verdict = report.verdict if report else _NO_REFERENCE
        except ConversionError as error:
            _logger.info("%s failed", name, exc_info=True)
            how, report, verdict = "failed", None, str(error)
        passed = None if report is None else report.passed
        seconds = time.perf_counter() - begun
        said = job.found.summary() if job.found else ""
        rows.append(ConvertedOne(name, str(job.source), how, passed, verdict, seconds, said))
        _logger.info("%s: %s", name, how)
        if report is not None:
            reports[name] = report
        if passed and job.architecture:
            plans.setdefault(job.architecture, name)
    if reports:
        for page in (REPORT, "parity.html"):
            write_page(output / page, reports, overwrite=True)
    return ConvertedMany(tuple(rows), reports)


def _converted(
    name: str, job: Job, output: Path, convert: Convert, plans: Mapping[str, str], overwrite: bool
) -> tuple[str, ParityReport | None]:
    """Return what was done with one, and the report.

    Raises:
        ConversionError: it cannot be converted.
    """
    folder = output / name
    if folder.exists() and not overwrite:
        _check_same(folder, job)
        return "there already", _stored_report(folder)
    plan = plans.get(job.architecture) if job.architecture else None
    if plan is not None:
        try:
            return f"by the plan of {plan}", convert(job, folder, output / plan).report
        except ConversionError:  # then it is converted by itself, which says what is wrong
            _logger.info("%s does not convert by the plan of %s", name, plan, exc_info=True)
    return "converted", convert(job, folder, None).report


_NO_REFERENCE = "there is no reference: weights alone were converted, and nothing was judged"


def _check_same(folder: Path, job: Job) -> None:
    """Hold a folder that is there to a source: it is its output, by the digest of the files.

    Raises:
        ConversionError: it is not, or holds no record.
    """
    recorded = read_conversion(folder).source.get("sha256")
    checkpoint = job.found.checkpoint if job.found else job.source
    key = job.found.key if job.found else None
    if recorded != open_checkpoint(checkpoint, key).digest():
        raise CheckpointError(
            f"{folder} exists, and is the output of another source than {checkpoint}: pass "
            f"{argument('overwrite', True)} to replace it"
        )


def _stored_report(folder: Path) -> ParityReport | None:
    if not (folder / REPORT).exists():
        return None
    return next(iter(read_reports([folder]).values()))


def _listed(source: str) -> list[Path]:
    """Return what a source stands for."""
    path = Path(source)
    if path.suffix == ".txt" and path.is_file():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise OptionsError(f"{path}: no list of sources: {error}") from error
        given = [line.strip() for line in lines]
        return [one for line in given if line and line[0] != "#" for one in _listed(line)]
    if not path.exists() and glob.has_magic(source):
        if not (found := sorted(glob.glob(source))):
            raise OptionsError(f"{source}: no file or folder fits this pattern")
        return [Path(one) for one in found]
    return [path]


def _parts(path: Path) -> dict[str, Job]:
    """Return the models that a folder describes; where that fails, converting it says why."""
    try:
        found = find_models(path)
    except ConversionError:
        _logger.info("%s cannot be read as a folder that says what it holds", path, exc_info=True)
        return {"": Job(path)}
    if not found:
        return {"": Job(path)}
    return {name: Job(one.checkpoint, one, one.architecture) for name, one in found.items()}


def _names(paths: Sequence[Path]) -> list[str]:
    """Return names that tell paths apart: of the last parts of each as many as that takes."""
    parts = [path.resolve().with_suffix("").parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["-".join(part[-count:]).strip("/-") for part in parts]
        if len(set(names)) == len(names):
            return names
    raise OptionsError(f"a source is given twice: {', '.join(map(str, paths))}")
