"""Verify an MLX model against a recorded reference: layers in place and alone, the model whole.

*In place*, a layer's input is what MLX computed so far; *alone*, it is PyTorch's, so that the layer
at fault stands out. *Whole*, the model is one lazy graph; *compiled*, that graph went through
``mx.compile``. Needs mlx and numpy, never torch: the reference brings what PyTorch computed.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.nn as nn

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.report.pictures import Histogram, Picture, pictured
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.caches import caches_as_arrays
from mlxport.converter.parity.run.call_alone import CallTemplate
from mlxport.converter.parity.run.check_metal import check_metal
from mlxport.converter.parity.run.environment import environment
from mlxport.converter.parity.run.interface import (
    mlx_arguments,
    output_names,
    paired_values,
    pairing_problem,
)
from mlxport.converter.parity.run.judge_arrays import failed_verdicts, judge_arrays
from mlxport.converter.parity.run.layouts import to_torch_order
from mlxport.converter.parity.run.replay_draws import check_draws, replayed
from mlxport.converter.parity.run.state_runs import StateRuns
from mlxport.converter.parity.run.trace import (
    ModelRunError,
    TracedCall,
    arrays,
    check_mode,
    modules_at,
    run_model,
    trace,
)
from mlxport.converter.parity.run.winograd import winograd_note
from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import ALONE, COMPILED, IN_PLACE, WHOLE, ParityEntry
from mlxport.converter.parity.verdict.judgement import (
    DEFAULT_JUDGEMENT,
    LARGEST_MULTIPLE,
    Judgement,
)
from mlxport.converter.parity.verdict.reference_data import Call, Reference
from mlxport.converter.plan.record import Conversion, ModuleRecord
from mlxport.converter.timings import stage

_logger = logging.getLogger(__name__)


def verify_live(
    model: nn.Module,
    conversion: Conversion,
    reference: Reference,
    *,
    inputs: tuple[Sequence[Any], Mapping[str, Any]] | None = None,
    judgement: Judgement = DEFAULT_JUDGEMENT,
    state: StateRuns | None = None,
) -> ParityReport:
    """Judge a model against a reference recorded with ``keep_inputs=True``.

    Of each call of each module in the conversion, every output tensor is judged *in place* and
    *alone*; the model's outputs *in place* and *whole*. ``conversion.modules`` may hold a path
    several times: its records stand for calls 0, 1, …, the last for all that follow. What cannot
    be judged is an entry with the reason, and never counts as passed.

    Args:
        model: the MLX model, in eval mode; called with the reference's inputs.
        conversion: says which MLX module stands for which PyTorch module, in which axis order.
        reference: what PyTorch computed.
        inputs: what to call the model with instead, positional and by name.
        judgement: what passes.
        state: that of the model, where it is verified in a sequence of calls.

    Raises:
        ParityError: the model is in training mode, fails, or does not fit the conversion, or the
            conversion does not fit the reference.
    """
    if state is None:
        state = StateRuns(model, conversion.state)
        with caches_as_arrays(model, conversion), state.from_the_beginning():
            return verify_live(
                model, conversion, reference, inputs=inputs, judgement=judgement, state=state
            )
    first = _Verification(model, conversion, reference, judgement, inputs, state)
    report = first.report()
    if reference.with_moved is None or not _may_be_luck(report):
        return report
    moved = reference.with_moved(reference)
    again = _Verification(model, conversion, moved, judgement, inputs, state)
    again.alone, again.results = first.alone, first.results
    return again.report()


def _may_be_luck(report: ParityReport) -> bool:
    """Tell whether something fails, and by so little that PyTorch's noise may be underrated."""
    failed = [
        entry.verdicts[mode]
        for entry in report.failed_entries
        for mode in entry.failing
        if mode != ALONE
    ]
    return any((verdict.ratio or math.inf) <= LARGEST_MULTIPLE for verdict in failed)


def verify_bundle(
    model: nn.Module,
    conversion: Conversion,
    reference: Reference,
    *,
    judgement: Judgement = DEFAULT_JUDGEMENT,
    state: StateRuns | None = None,
) -> ParityReport:
    """Judge a model against a reference read from a file, where torch need not be installed.

    As `verify_live`, without *alone*: a stored reference contains no layer inputs.

    Raises:
        ParityError: as for `verify_live`.
    """
    calls = tuple(replace(call, inputs=None, alone=()) for call in reference.calls)
    without = replace(reference, calls=calls, with_moved=None)
    return verify_live(model, conversion, without, judgement=judgement, state=state)


def verify_at_sizes(
    model: nn.Module,
    conversion: Conversion,
    references: Iterable[Reference],
    *,
    judgement: Judgement = DEFAULT_JUDGEMENT,
    alone: bool = True,
) -> ParityReport:
    """Judge a model against references recorded at several sizes and on several inputs.

    Args:
        model: the MLX model.
        conversion: says which MLX module stands for which PyTorch module.
        references: what PyTorch computed in each run, of the example first. Those with a ``case``
            contain no layer inputs. Calls of one sequence follow one another. Where the model
            raises in a run, the report says so.
        judgement: what passes.
        alone: judge layers on PyTorch's inputs too, which the references then contain.

    Raises:
        ParityError: as for `verify_live`.
    """

    def judged(reference: Reference) -> ParityReport:
        check = verify_live if alone and not reference.case else verify_bundle
        state.begin(reference.call)
        try:
            return check(model, conversion, reference, judgement=judgement, state=state)
        except ParityError as error:
            if not (reference.case or isinstance(error, ModelRunError)):
                raise
            return failed_run(model, reference, str(error), judgement)

    remaining = iter(references)
    example = next(remaining)
    state = StateRuns(model, conversion.state)
    with caches_as_arrays(model, conversion), state.from_the_beginning():
        first, others = judged(example), tuple(map(judged, remaining))
        note = winograd_note(model, conversion)
        return replace(
            first,
            others=others,
            notes=(*first.notes, *([note] if note else [])),
            metal=check_metal(model, conversion, example),
        )


def failed_run(
    model: nn.Module, reference: Reference, problem: str, judgement: Judgement
) -> ParityReport:
    """Return the report on a run in which the model gave no result."""
    layer = type(model).__name__
    outputs = tuple(
        ParityEntry("", 0, k, layer, dict.fromkeys((IN_PLACE, WHOLE), verdict))
        for k, verdict in enumerate(failed_verdicts(reference.outputs, problem))
    )
    return _report(reference, judgement, (), outputs)


def _report(
    reference: Reference,
    judgement: Judgement,
    entries: tuple[ParityEntry, ...],
    outputs: tuple[ParityEntry, ...],
) -> ParityReport:
    return ParityReport(
        entries=entries,
        outputs=outputs,
        dtype=reference.dtype,
        reference_dtype=reference.reference_dtype,
        fallback=reference.fallback,
        noise_multiple=judgement.noise_multiple,
        seed=reference.seed,
        environment=environment(reference.versions),
        sizes=dict(reference.sizes),
        case=reference.case,
        fast_path=reference.fast_path,
    )


@dataclass(frozen=True, eq=False)
class _Pair:
    """A call in MLX and its counterpart in PyTorch, with the entries of its outputs."""

    call: Call
    template: CallTemplate
    entries: tuple[ParityEntry, ...]


class _Verification:
    """The runs of one model beside one reference, and the verdicts on everything in them.

    Attributes:
        seen: name of a torch module -> how many calls of its counterpart have been traced.
        pairs: the calls traced so far that have a counterpart, in the order in which they returned.
        alone: path and number of a call -> its entries' verdicts alone, or why there are none. How
            far values move in place does not change them.
        results: the model's results whole and compiled, and why there is none compiled.
    """

    def __init__(
        self,
        model: nn.Module,
        conversion: Conversion,
        reference: Reference,
        judgement: Judgement,
        inputs: tuple[Sequence[Any], Mapping[str, Any]] | None,
        state: StateRuns,
    ) -> None:
        self.state = state
        self.model, self.reference, self.judgement = model, reference, judgement
        self.root, self.records = _by_module(model, conversion)
        self.inputs, self.named = inputs or mlx_arguments(self.root, conversion, reference)
        self.names = output_names(conversion, reference)
        self.signature = conversion.signature and (reference.signature or conversion.signature)
        self.calls = {(call.path, call.number): call for call in reference.calls}
        self.seen: Counter[str] = Counter()
        self.pairs: list[_Pair] = []
        self.alone: dict[tuple[str, int], list[Verdict | str]] = {}
        self.results: tuple[Any, Any, str] | None = None
        self.draws, self.quantized = conversion.draws, conversion.quantized
        check_draws(reference.draws, self.draws)

    def report(self) -> ParityReport:
        """Run the model in place, its modules alone, the model whole."""
        targets = [records[0].target for records in self.records.values()]
        reference = self.reference
        drawn = replayed(reference.draws, self.draws)
        with stage("in place"), drawn, self.state.running(IN_PLACE):
            in_place = trace(self.model, self.inputs, targets, self.observe, named=self.named)
        with stage("alone"):
            entries = [entry for pair in self.pairs for entry in self.judged_alone(pair)]
        self.results = whole, compiled, reason = self.results or (
            self.run_whole(),
            *self.run_compiled(),
        )
        pictures, histograms = self.pictured(whole)
        report = _report(
            reference,
            self.judgement,
            entries=(*self.without_miscounted(entries), *self.never_called(), *self.judged_state()),
            outputs=self.judge_outputs(in_place, whole, compiled, reason),
        )
        return replace(
            report,
            draws=len(reference.draws),
            pictures=pictures,
            histograms=histograms,
            notes=tuple(self.quantized.sentences()) if self.quantized else (),
            quantized=self.quantized.summary() if self.quantized else "",
        )

    def judged_state(self) -> Iterator[ParityEntry]:
        """Yield the verdicts on what the call left for later ones."""
        yield from self.state.judged(self.reference, self.judgement)

    def pictured(self, result: Any) -> tuple[tuple[Picture, ...], tuple[Histogram, ...]]:
        """Return slices and histograms of the outputs, where they are as many as PyTorch's."""
        found, values = list(arrays(result)), self.reference.outputs
        if not len(found) == len(values) == len(self.names):
            return (), ()
        pairs = zip(found, self.root.outputs, strict=True)
        return pictured(self.names, [to_torch_order(*pair) for pair in pairs], values)

    def observe(self, traced: TracedCall) -> None:
        """Judge a call in place as it comes, so that its values need not stay in memory."""
        records = self.records[id(traced.module)]
        record = records[min(traced.number, len(records) - 1)]
        number, path = self.seen[self.canonical(record.path)], record.path
        self.seen[self.canonical(path)] += 1
        call = self.calls.get((self.canonical(path), number))
        if call is None:
            return  # never_called and without_miscounted report it
        blank = ParityEntry(path, number, layer=type(traced.module).__name__)
        entries: Iterator[ParityEntry]
        if reason := pairing_problem(call, record):
            entries = iter([_skipped(blank, reason, IN_PLACE)])
        else:
            values = paired_values(call.outputs, record)
            verdicts = judge_arrays(traced.outputs, record.outputs, values, self.judgement)
            places = record.results or range(len(verdicts))
            entries = (
                replace(blank, output=k, verdicts={IN_PLACE: v})
                for k, v in zip(places, verdicts, strict=True)
            )
        self.pairs.append(_Pair(call, CallTemplate.of(traced, record), tuple(entries)))
        if call.release is not None:
            call.release()

    def judged_alone(self, pair: _Pair) -> Iterator[ParityEntry]:
        """Yield a call's entries with the verdicts on its module, called with PyTorch's inputs."""
        key = pair.template.record.path, pair.call.number
        if key not in self.alone:
            self.alone[key] = self.judge_alone(pair)
            if pair.call.release is not None:
                pair.call.release()
        for entry, found in zip(pair.entries, self.alone[key], strict=True):
            if isinstance(found, str):
                yield _skipped(entry, found, ALONE)
            else:
                yield replace(entry, verdicts={**entry.verdicts, ALONE: found})

    def judge_alone(self, pair: _Pair) -> list[Verdict | str]:
        """Call a module with PyTorch's inputs; the verdict on each result, or why there is none."""
        call, record = pair.call, pair.template.record
        if self.state.is_in(record.path):
            return ["it keeps state from call to call"] * len(pair.entries)
        reason = pairing_problem(call, record) or pair.template.obstacle(call.inputs)
        if reason or call.inputs is None:
            return [reason] * len(pair.entries)
        expected = paired_values(call.alone, record)
        try:
            inside = slice(*call.draws)
            with replayed(self.reference.draws[inside], self.draws[inside]):
                outputs = pair.template.outputs(call.inputs)
        except Exception as error:  # the module's code, whatever it raises
            _logger.debug("%s fails on PyTorch's own input", record.path, exc_info=True)
            problem = f"fails on PyTorch's own input: {type(error).__name__}: {error}"
            return [*failed_verdicts(expected, problem)]
        verdicts = judge_arrays(outputs, record.outputs, expected, self.judgement)
        if call.moved_alone and not all(verdict.passed for verdict in verdicts):
            expected = paired_values(call.complete().alone, record)
            verdicts = judge_arrays(outputs, record.outputs, expected, self.judgement)
        return [*verdicts]

    @stage("whole")
    def run_whole(self) -> Any:
        """Return the model's result as one lazy graph."""
        with replayed(self.reference.draws, self.draws), self.state.running(WHOLE):
            return run_model(self.model, self.inputs, self.named)

    @stage("compiled")
    def run_compiled(self) -> tuple[Any, str]:
        """Return the compiled model's result, or why there is none.

        Not every model compiles: one that gives back a flag, say.
        """
        try:
            with replayed(self.reference.draws, self.draws), self.state.running(COMPILED):
                kept = {"stateful": True} if self.state.records else {}
                found = run_model(self.model, self.inputs, self.named, compiled=True, **kept)
                return found, ""
        except ParityError as error:
            _logger.debug("mx.compile cannot run the model", exc_info=True)
            return None, f"mx.compile cannot run it ({str(error).splitlines()[0]})"

    def judge_outputs(
        self, in_place: Any, whole: Any, compiled: Any, reason: str
    ) -> tuple[ParityEntry, ...]:
        """Judge the model's outputs, from its results in place, as one graph, and compiled."""
        layer = type(self.model).__name__
        results = {IN_PLACE: in_place, WHOLE: whole} | ({} if reason else {COMPILED: compiled})
        verdicts = {mode: self.judge_result(result) for mode, result in results.items()}
        entries = [
            ParityEntry("", 0, k, layer, {mode: v[k] for mode, v in verdicts.items()}, name=name)
            for k, name in enumerate(self.names)
        ]
        return tuple(_skipped(e, reason, COMPILED) if reason else e for e in entries)

    def judge_result(self, result: Any) -> list[Verdict]:
        """Judge one result of the model; one that is nested otherwise fails as a whole."""
        values = self.reference.outputs
        problems = self.signature.result.differences(result, "output") if self.signature else []
        if problems:
            return failed_verdicts(values, *problems)
        outputs = tuple(arrays(result))
        return judge_arrays(outputs, self.root.outputs, values, self.judgement)

    def canonical(self, path: str) -> str:
        """Return the name under which the reference has a module's calls."""
        return self.reference.aliases.get(path, path)

    def without_miscounted(self, entries: Sequence[ParityEntry]) -> Iterator[ParityEntry]:
        """Yield entries; where the runs differ in the number of calls, no pair is certain."""
        expected = Counter(call.path for call in self.reference.calls)
        for entry in entries:
            path = self.canonical(entry.path)
            if self.seen[path] == expected[path]:
                yield entry
            else:
                reason = f"called {expected[path]} times in PyTorch, {self.seen[path]} in MLX"
                yield _skipped(replace(entry, verdicts={}, skipped={}), reason, IN_PLACE, ALONE)

    def never_called(self) -> Iterator[ParityEntry]:
        """Yield an entry for every module of which no call could be paired."""
        done = {pair.call.path for pair in self.pairs}
        for record in (record for records in self.records.values() for record in records):
            path = self.canonical(record.path)
            if path in done:
                continue
            done.add(path)
            reason = "never called in PyTorch" if self.seen[path] else "never called in MLX"
            if record.path not in self.reference.aliases:
                reason = "the reference was recorded without it"
            yield _skipped(ParityEntry(record.path), reason, IN_PLACE, ALONE)


def _skipped(entry: ParityEntry, reason: str, *modes: str) -> ParityEntry:
    return replace(entry, skipped={**entry.skipped, **dict.fromkeys(modes, reason)})


def _by_module(
    model: nn.Module, conversion: Conversion
) -> tuple[ModuleRecord, dict[int, list[ModuleRecord]]]:
    """Return the record of the model itself, and those of its modules by the module's identity."""
    check_mode(model)
    roots = [record for record in conversion.modules if record.path == ""]
    if len(roots) != 1:
        raise ParityError(
            f"the conversion holds {len(roots)} records of the model itself (path ''), expected 1: "
            "conversion.json is damaged. Convert the model again."
        )
    inner = [record for record in conversion.modules if record.path != ""]
    modules = modules_at(model, [record.target for record in inner])
    records: dict[int, list[ModuleRecord]] = {}
    for record in inner:
        records.setdefault(id(modules[record.target]), []).append(record)
    return roots[0], records
