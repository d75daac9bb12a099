"""The parity report: all verdicts, the outcome, and where the verification ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal

from mlxport.converter.errors import ConversionError, EvidenceError
from mlxport.converter.parity.report.html import html
from mlxport.converter.parity.report.markdown import markdown
from mlxport.converter.parity.report.metal_check import MetalCheck
from mlxport.converter.parity.report.notebook import notebook_html
from mlxport.converter.parity.report.pictures import Histogram, Picture
from mlxport.converter.parity.report.text import render, render_summary, worst
from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import (
    ALONE,
    BACKWARD,
    COMPILED,
    IN_PLACE,
    STATE,
    WHOLE,
    ParityEntry,
)
from mlxport.converter.parity.verdict.judgement import NOISE_MULTIPLE
from mlxport.converter.plan.json_data import Count, Real, from_data, named_format, to_data

REPORT_FORMAT: Final = "mlxport-parity"
REPORT_VERSION: Final = 1


_FAILURES_PRINTED = 5


class Outcome(Enum):
    """What a verification showed."""

    HOLDS = "parity holds"
    FAILED = "parity FAILED"  # a verdict failed
    NOT_SHOWN = "parity NOT SHOWN"  # none failed, but no value was compared


@dataclass(frozen=True)
class Findings:
    """What follows from a report's verdicts; it stands first in its JSON.

    Attributes:
        format: of the file.
        version: of the format.
        passed: whether parity was shown, in every run.
        culprit: qualified name of the module that causes the first failure; empty for the model
            itself, null where passed.
        verdict: the outcome in a sentence.
    """

    format: Literal["mlxport-parity"]
    version: Literal[1]
    passed: bool
    culprit: str | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """What one verification found.

    Attributes:
        dtype: the model's own dtype in PyTorch.
        reference_dtype: dtype the reference was computed in.
        fallback: why that is not float64; empty where it is.
        noise_multiple: the largest ratio of MLX's error to PyTorch's noise that passes.
        seed: of the reference run.
        draws: how many random draws of PyTorch's the MLX model was given.
        environment: device, backend, versions and settings of this run.
        sizes: name of each dynamic size -> what it was in this run; empty where all are static.
        case: what was put in, in words, where it was not the example (``"impulse inputs"``).
        fast_path: what is other on PyTorch's fast path for attention, which it takes in eval mode
            without gradients, and which is then not followed; empty where nothing is.
        changed: which weights are no longer those that were converted; empty where all are, or
            that was not asked.
        others: what was found at other sizes and on other inputs.
        pictures: slices of the model's outputs, as it runs whole.
        histograms: of the error at their single positions.
        notes: what the reader should know besides, one sentence each.
        quantized: how the weights are quantised, in PyTorch too, and how far that moves the
            outputs; empty where they are not.
        metal: what MLX's sources say of the model's calls on Metal; null where nobody looked.
        outputs: the model's output tensors.
        entries: the modules' output tensors in the order in which MLX computed them, so that a
            module's layers come before the module; those never reached come last.
        gradients: of the model's inputs, then of its parameters in the order of their modules'
            calls; empty where they were not asked for.
    """

    dtype: str = "float32"
    reference_dtype: str = "float64"
    fallback: str = ""
    noise_multiple: Real = NOISE_MULTIPLE
    seed: int = 0
    draws: Count = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, Count] = field(default_factory=dict)
    case: str = ""
    fast_path: str = ""
    changed: str = ""
    others: tuple[ParityReport, ...] = ()
    pictures: tuple[Picture, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    notes: tuple[str, ...] = ()
    quantized: str = ""
    metal: MetalCheck | None = None
    outputs: tuple[ParityEntry, ...]
    entries: tuple[ParityEntry, ...]
    gradients: tuple[ParityEntry, ...] = ()

    def __repr__(self) -> str:
        return f"<ParityReport: {self.verdict}>"

    def __str__(self) -> str:
        failed = [f"  {entry}" for entry in self.decisive.failed_entries]
        lines = [self.verdict, *failed[:_FAILURES_PRINTED]]
        if len(failed) > _FAILURES_PRINTED:
            lines.append(f"  and {len(failed) - _FAILURES_PRINTED} more that failed")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the verdict and the worst layers, small, for a notebook."""
        return notebook_html(self)

    @property
    def model(self) -> str:
        """Name of the model's class in MLX."""
        return next((output.layer for output in self.outputs if output.layer), "the model")

    @property
    def passed(self) -> bool:
        """Whether parity was shown: outputs compared in every way, and no verdict failed.

        What was skipped neither passes nor fails; outputs of which no value was compared (none
        there, all empty, all NaN) show nothing, so the report does not pass, nor where gradients
        were asked for and none was compared. Where it was tried at several sizes or on several
        inputs, parity is shown only where it is in every run.
        """
        return self.run_passed and all(other.passed for other in self.others)

    @property
    def outcome(self) -> Outcome:
        """What this verification showed, all its runs taken together."""
        if self.passed:
            return Outcome.HOLDS
        return Outcome.FAILED if self.decisive.failed_entries else Outcome.NOT_SHOWN

    @property
    def failed_entries(self) -> tuple[ParityEntry, ...]:
        """The entries of this run, outputs and gradients included, with a verdict that failed."""
        return tuple(entry for entry in self._all() if entry.failing)

    @property
    def culprit(self) -> str | None:
        """Qualified name of the module that causes the first failure; None where passed.

        The first module that fails alone, in the order computed; if none does, the first that
        fails in place, whose input may be what is wrong; ``""``, the model, if no module fails.
        Where only gradients are wrong, the last module in that order: the first on the way back.
        """
        if self.passed:
            return None
        if self.decisive is not self:
            return self.decisive.culprit
        entry = self._first_at_fault()
        return entry.path if entry else ""

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        changed = f"\n{self.changed}" if self.changed else ""
        if self.passed:
            weights = f"; both with weights quantized to {self.quantized}"
            return self._holds() + self._elsewhere() + weights * bool(self.quantized) + changed
        failed = self.decisive
        where = f"\n({failed.conditions})" if failed.conditions else ""
        return failed._failed() + where + changed

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data, free of NaN and infinity."""
        found = Findings(REPORT_FORMAT, REPORT_VERSION, self.passed, self.culprit, self.verdict)
        data = {**to_data(found), **to_data(replace(self, others=()))}
        return {**data, "others": [other.to_json() for other in self.others]}

    @classmethod
    def from_json(cls, data: Any) -> ParityReport:
        """Build a report from JSON data.

        Raises:
            EvidenceError: it is no parity report, or one of another version; the message names the
                field that is wrong.
        """
        form, version = named_format(data)
        if (form, version) != (REPORT_FORMAT, REPORT_VERSION):
            raise EvidenceError(
                f"expected {REPORT_FORMAT} version {REPORT_VERSION}, got {form!r} version "
                f"{version!r}. Is this the parity.json of an mlxport output folder?"
            )
        try:
            from_data(Findings, data)
            return from_data(cls, data)
        except ConversionError as error:
            raise EvidenceError(str(error)) from error

    def to_text(
        self,
        width: int = 100,
        *,
        failing_first: bool = False,
        limit: int | None = None,
        color: bool = False,
    ) -> str:
        """Return the verdict and a table of the entries for a terminal.

        Args:
            width: columns.
            failing_first: list what failed before the rest.
            limit: list at most this many modules; all if None.
            color: with ANSI colours.
        """
        shown_run = self.decisive
        if shown_run is not self:
            return shown_run.to_text(width, failing_first=failing_first, limit=limit, color=color)
        entries = list(self.entries)
        if failing_first:
            entries.sort(key=lambda entry: not entry.failing)
        shown = entries[:limit]
        notes = [] if len(shown) == len(entries) else [f"{len(entries) - len(shown)} more layers"]
        notes += [*self.remarks, *filter(None, [self.dynamo]), *_orders(self._all())]
        notes += [f"{key} {value}" for key, value in self.environment.items()]
        tables = [[*shown, *self.outputs], self.gradients]
        return render(self.verdict, tables, notes, passed=self.passed, width=width, color=color)

    def summary(
        self,
        width: int | None = 80,
        *,
        full: bool = False,
        page: Path | None = None,
        color: bool = False,
    ) -> str:
        """Return the layers farthest from PyTorch, the outputs and, last, the verdict.

        Args:
            width: columns; no line is longer, but for words that cannot be shortened. None for no
                limit, for what is read by programs.
            full: all layers, and where it ran.
            page: where the report is as a page, if it was written.
            color: with ANSI colours.
        """
        run = self.decisive
        layers = list(run.entries) if full else worst(run.entries)
        count = len(run.entries)
        fewer = len(layers) < count
        title = f"The worst {len(layers)} of {count} layer calls" if fewer else "Layers"
        gradients = list(run.gradients) if full else worst(run.gradients)
        tables = [(title, layers), ("Outputs", run.outputs), ("Gradients", gradients)]
        notes = [*run.remarks, *filter(None, [run.dynamo]), *_orders(run._all())]
        if full:
            notes += [f"{key} {value}" for key, value in run.environment.items()]
        return render_summary(
            self.verdict,
            tables,
            list(run._all()),
            notes,
            page=f"{page}" if page else "",
            passed=self.passed,
            width=width,
            color=color,
        )

    def to_markdown(self) -> str:
        """Return the report as a page in Markdown."""
        return markdown({"parity": self})

    def to_html(self) -> str:
        """Return the report as a self-contained page in HTML."""
        return html({"parity": self})

    @property
    def decisive(self) -> ParityReport:
        """The first of the runs at several sizes and inputs that failed; the example's if none."""
        runs = (replace(self, others=()), *self.others)
        failed = next((i for i, run in enumerate(runs) if not run.passed), 0)
        return runs[failed] if failed else self

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes, and what is to be said of Metal."""
        return (*self.notes, *(self.metal.sentences() if self.metal else ()))

    @property
    def conditions(self) -> str:
        """At which sizes and on which inputs it ran; empty for the example where all is static."""
        at = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        return " ".join(filter(None, [self.case and f"on {self.case}", at and f"at {at}"]))

    @property
    def run_passed(self) -> bool:
        """Whether this run passed, regardless of the others."""
        return not self.failed_entries and self._compared()

    @property
    def outputs_compared(self) -> bool:
        """Whether values of the model's outputs were compared, in place and whole."""
        complete = all(
            mode in entry.verdicts for entry in self.outputs for mode in (IN_PLACE, WHOLE)
        )
        return complete and _values(self.outputs) > 0

    @property
    def worst_ratio(self) -> float:
        """The largest ratio of error to noise in this run."""
        return max((entry.ratio for entry in self._all()), default=0.0)

    @property
    def dynamo(self) -> str:
        """What PyTorch's criterion for its own compilers says of this run; empty if nothing."""
        asked = [
            (f"{entry.label} {mode.replace('_', ' ')}", verdict.dynamo)
            for entry in self._all()
            for mode, verdict in entry.verdicts.items()
            if verdict.dynamo is not None
        ]
        failed = [label for label, passes in asked if not passes]
        if not asked:
            return ""
        if not failed:
            return f"torch._dynamo.utils.same passes all {len(asked)} tensors"
        named = ", ".join(failed[:_FAILURES_PRINTED])
        more = f" and {len(failed) - _FAILURES_PRINTED} more" * (len(failed) > _FAILURES_PRINTED)
        return (
            f"torch._dynamo.utils.same fails {len(failed)} of {len(asked)} tensors: {named}{more}"
        )

    def _elsewhere(self) -> str:
        """Say at which sizes and on which inputs parity holds."""
        runs = (self, *self.others)
        sizes = [run.conditions.removeprefix("at ") for run in runs if run.sizes and not run.case]
        cases = [run.case for run in runs if run.case]
        tried = f"; sizes {' and '.join(sizes)}" if sizes else ""
        return tried + (f"; also on {', '.join(cases)}" if cases else "")

    def _all(self) -> Iterator[ParityEntry]:
        yield from self.entries
        yield from self.outputs
        yield from self.gradients

    def _compared(self) -> bool:
        return self.outputs_compared and (not self.gradients or _values(self.gradients) > 0)

    def _first_at_fault(self) -> ParityEntry | None:
        for mode in (ALONE, IN_PLACE):
            for entry in self.entries:
                if mode in entry.failing:
                    return entry
        if any(output.failing for output in self.outputs):
            return None
        return next((entry for entry in reversed(self.gradients) if entry.failing), None)

    def _holds(self) -> str:
        state = [entry for entry in self.entries if entry.layer == STATE]
        layers = {
            (entry.path, entry.call)
            for entry in self.entries
            if entry.verdicts and entry.layer != STATE
        }
        unjudged = {(entry.path, entry.call) for entry in self.entries if not entry.verdicts}
        worst = max(self._all(), key=lambda entry: entry.ratio)
        yardstick = f"PyTorch's own {self.dtype} noise"
        if self.fallback:
            yardstick = f"one {self.dtype} rounding ({self.fallback})"
        found = [_count(len(self.outputs), "output")]
        found += [_count(len(state), "array") + " of state"] if state else []
        found += [_count(len(layers), "layer call")]
        judged = [entry for entry in self.gradients if entry.verdicts]
        found += [_count(len(judged), "gradient")] if self.gradients else []
        sentence = (
            f"{Outcome.HOLDS.value}{self._not_followed()}: "
            f"{', '.join(found[:-1])} and {found[-1]} within "
            f"{self.noise_multiple:g}x of {yardstick}; worst {worst.ratio:.2g}x at {worst.label}"
        )
        sentence += f"; {_count(self.draws, 'random draw')} replayed" * bool(self.draws)
        sentence += f"; {_count(len(unjudged), 'layer call')} not judged" * bool(unjudged)
        left = len(self.gradients) - len(judged)
        return sentence + (f"; {_count(left, 'gradient')} not judged" * bool(left))

    def _not_followed(self) -> str:
        """Say that PyTorch's own fast path is another, wherever that was found."""
        run = next((run for run in (self, *self.others) if run.fast_path), None)
        if run is None:
            return ""
        where = f" {run.conditions}" if run is not self else ""
        return (
            " with torch.backends.mha.set_fastpath_enabled(False), not with the fast path that "
            f"PyTorch takes in eval() without gradients ({run.fast_path}{where})"
        )

    def _failed(self) -> str:
        if not self.failed_entries:
            of = "gradients" if self.outputs_compared else "outputs"
            return (
                f"{Outcome.NOT_SHOWN.value}{self._not_followed()}: of the model's {of} no value "
                "was compared"
            )
        entry = self._first_at_fault()
        if entry is None:
            entry = next(output for output in self.outputs if output.failing)
        mode = ALONE if ALONE in entry.failing else entry.failing[0]
        problem = "; ".join(entry.verdicts[mode].problems)
        return (
            f"{Outcome.FAILED.value} at {entry.label}{self._not_followed()}: {problem}\n"
            f"{self._hint(entry, mode)}"
        )

    def _hint(self, entry: ParityEntry, mode: str) -> str:
        alone: Verdict | None = entry.verdicts.get(ALONE)
        if not self.entries and not self.outputs_compared:
            return "No value was compared."
        if mode == ALONE:
            return "It differs on PyTorch's own input: the layer or its weights are wrong."
        if mode == WHOLE:
            return "Evaluated step by step it is right, as one lazy graph it is not."
        if mode == COMPILED:
            return "It is right as it is, compiled by mx.compile it is not."
        failed = entry.verdicts[mode]
        if mode == BACKWARD and failed.error is None and failed.first is None:
            return "Forwards it is right. MLX gives no gradient of the whole model to compare."
        if mode == BACKWARD:
            return (
                "Forwards it is right, backwards it is not. Of the wrong gradients this is the "
                "first on the way back: this layer's derivative is wrong, or that of what follows."
            )
        if entry in self.outputs:
            return "No layer judged fails: what comes between or after the layers is wrong."
        if alone is not None:
            return "On PyTorch's own input it is right: what it is fed is wrong. Look before it."
        return f"Not judged alone ({entry.skipped.get(ALONE, 'no reason given')})."


def _values(entries: Iterable[ParityEntry]) -> int:
    return sum(verdict.compared for entry in entries for verdict in entry.verdicts.values())


def _orders(entries: Iterable[ParityEntry]) -> list[str]:
    """Say which axis orders were found, the commonest first, and where the rarer ones."""
    places: dict[tuple[int, ...], list[str]] = {}
    for entry in entries:
        if entry.order is not None:
            places.setdefault(entry.order, []).append(entry.label)
    return [
        f"axes {order} in MLX: " + (f"{len(found)} tensors" if len(found) > 3 else ", ".join(found))
        for order, found in sorted(places.items(), key=lambda item: -len(item[1]))
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
