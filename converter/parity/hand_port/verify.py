"""Hold an MLX model written by hand to its torch model.

The modules are paired by name, the orders of axes found by running the model; from there on it is
verified as a converted model is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.nn as nn
import torch

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.hand_port.gradients import verify_port_gradients
from mlxport.converter.parity.hand_port.infer_order import (
    AxisOrder,
    OrderMatch,
    customary_orders,
    infer_order,
    torch_order,
)
from mlxport.converter.parity.hand_port.input_orders import (
    MlxArguments,
    MlxInputs,
    OrderSpec,
    candidate_arguments,
    explicit_arguments,
    parse_orders,
)
from mlxport.converter.parity.hand_port.match_calls import CallMatcher, MatchedCall
from mlxport.converter.parity.hand_port.pair_modules import ModuleNames, Pairing, pair_modules
from mlxport.converter.parity.hand_port.trials import PortTrials
from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.reference.trials import Trials
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.layouts import to_numpy
from mlxport.converter.parity.run.trace import arrays, check_mode, modules_at, trace
from mlxport.converter.parity.run.verify import verify_live
from mlxport.converter.parity.verdict.entry import ALONE, IN_PLACE, ParityEntry
from mlxport.converter.parity.verdict.judgement import DEFAULT_JUDGEMENT, Judgement
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.parity.verify_gradients import TorchModel
from mlxport.converter.plan.record import Conversion, Layout, ModuleRecord
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.torch_model.calls import in_order

_logger = logging.getLogger(__name__)


def verify_hand_port(
    model: nn.Module,
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    names: ModuleNames | None = None,
    mlx_inputs: MlxInputs | None = None,
    inputs_order: OrderSpec | Sequence[OrderSpec] | None = None,
    outputs_order: OrderSpec | Sequence[OrderSpec] | None = None,
    judgement: Judgement = DEFAULT_JUDGEMENT,
    trials: Trials | None = None,
    gradients: bool = False,
) -> ParityReport:
    """Judge every module that has a counterpart, and the model; see ``mlxport.verify``.

    Raises:
        OptionsError: ``names`` or an order does not fit the models.
        ParityError: the model is in training mode, nothing pairs, or it fails on the inputs.
    """
    check_mode(model)
    pairing = pair_modules(_callable_paths(module), model, names)
    reference = record_reference(module, args, kwargs, paths=list(pairing.pairs), keep_inputs=True)
    port = HandPort(model, pairing, reference, outputs_order)
    given = in_order(module, args, kwargs)
    ways = (
        [explicit_arguments(mlx_inputs, given)]
        if mlx_inputs is not None
        else candidate_arguments(given, inputs_order)
    )
    run = port.best_run(ways)
    report = verify_live(
        model,
        port.conversion(run),
        reference,
        inputs=(run.arrangement.args, run.arrangement.kwargs),
        judgement=judgement,
    )
    report = port.annotated(report, run)
    if gradients:
        origin = TorchModel(module, args, kwargs, reference)
        entries = verify_port_gradients(
            model,
            port.conversion(run),
            origin,
            pairing.pairs,
            run.arrangement,
            judgement=judgement,
        )
        report = replace(report, gradients=entries)
    asked = trials or Trials()
    if not (asked.kinds or asked.batch_sizes):
        return report
    found = PortTrials(port, run, module, given, mlx_inputs, judgement)
    return replace(report, others=tuple(found.reports(asked)), notes=(*report.notes, *found.notes))


class PortRun:
    """One run of the MLX model and what it tells of the orders."""

    def __init__(
        self, arrangement: MlxArguments, settling: CallMatcher, outputs: list[OrderMatch]
    ) -> None:
        self.arrangement, self.settling = arrangement, settling
        self.outputs = outputs

    @property
    def score(self) -> tuple[int, int]:
        """How many of the model's outputs are recognised, and how many of the modules' calls."""
        calls = sum(found.recognised for found in self.settling.found)
        return sum(one.recognised for one in self.outputs), calls

    @property
    def complete(self) -> bool:
        """Whether nothing is left that another arrangement of the inputs could explain."""
        found = self.settling.found
        return all(o.recognised for o in self.outputs) and all(
            one.recognised or one.problem for one in found
        )


class HandPort:
    """An MLX model, the names that pair it with a torch model, and what that one computes."""

    def __init__(
        self,
        model: nn.Module,
        pairing: Pairing,
        reference: Reference,
        outputs_order: OrderSpec | Sequence[OrderSpec] | None,
    ) -> None:
        self.model, self.pairing, self.reference = model, pairing, reference
        self.modules = modules_at(model, list(pairing.pairs.values()))
        ranks = [len(value.shape) for value in reference.outputs]
        self.said: Sequence[AxisOrder] | None = (
            None if outputs_order is None else parse_orders(outputs_order, ranks, "outputs_order")
        )

    def best_run(self, ways: Iterable[MlxArguments]) -> PortRun:
        """Run the model on its inputs in one order after another, until PyTorch's values appear."""
        runs, failures = [], []
        for way in ways:
            try:
                run = self.run(way)
            except ParityError as error:
                failures.append(str(error))
                _logger.debug("the model does not run on %s: %s", way, error)
                continue
            runs.append(run)
            if run.complete:
                break
        if not runs:
            raise ParityError.listing(
                f"{type(self.model).__name__} does not run on PyTorch's inputs, in any order of "
                "their axes that was tried:",
                dict.fromkeys(failures),
                "Say what it takes: inputs_order=, or mlx_inputs= (arrays, or a function that "
                "makes them of PyTorch's inputs as arrays).",
            )
        most = max(run.score for run in runs)
        best = [run for run in runs if run.score == most]
        for run in best:
            run.settling.settle_rest()
        # a fault in the first layer hides which it is; in the right one orders hardly change
        return min(best, key=lambda run: run.settling.variety())

    def run(self, way: MlxArguments) -> PortRun:
        """Run the model once and settle what the values tell."""
        by_module: dict[int, list[str]] = {}
        targets: dict[int, str] = {}
        for path, target in self.pairing.pairs.items():
            key = id(self.modules[target])
            by_module.setdefault(key, []).append(path)
            targets.setdefault(key, target)
        settling = CallMatcher(by_module, targets, self.reference)
        watched = list(self.modules)
        result = trace(self.model, way.args, watched, settling.observe, named=way.kwargs)
        return PortRun(way, settling, self.results(settling, [to_numpy(a) for a in arrays(result)]))

    def results(self, settling: CallMatcher, values: Sequence[Any]) -> list[OrderMatch]:
        """Settle the order of the model's own outputs, in which not any order will do.

        A model that gives its result with height and width exchanged is wrong, however well the
        values agree.
        """
        expected = self.reference.outputs
        found = []
        for place, value in enumerate(expected):
            rank = len(value.shape)
            unfit = OrderMatch(torch_order(rank), float("inf"))
            if len(values) != len(expected):
                found.append(unfit)
                continue
            array = values[place]
            if self.said is not None:
                orders = [o for o in [self.said[place]] if _stored(value.shape, o) == array.shape]
            else:
                orders = customary_orders(settling.orders(value.shape, array), value.shape)
            settled = infer_order(array, value.reference, value.shape, value.dtype, orders)
            found.append(settled or unfit)
        return found

    def conversion(self, run: PortRun) -> Conversion:
        """Return the record a conversion would have left."""
        records = [found.record for found in run.settling.found]
        seen = {record.path for record in records}
        aliases = self.reference.aliases
        records += [
            ModuleRecord(path, target, (), ())
            for path, target in self.pairing.pairs.items()
            if aliases.get(path, path) not in seen
        ]
        outputs = tuple(
            Layout(value.shape, value.dtype, settled.order)
            for value, settled in zip(self.reference.outputs, run.outputs, strict=True)
        )
        root = ModuleRecord("", "", (), outputs)
        return Conversion(WeightPlan(), (*records, root), ())

    def annotated(self, report: ParityReport, run: PortRun) -> ParityReport:
        """Return the report with MLX's paths, the orders found, and what stands alone."""
        found = {(one.call.path, one.call.number): one for one in run.settling.found}
        entries = [
            self.described(entry, found.get((entry.path, entry.call))) for entry in report.entries
        ]
        outputs = [
            replace(entry, order=settled.order)
            for entry, settled in zip(report.outputs, run.outputs, strict=True)
        ]
        notes = [*_inputs_note(run.arrangement), *_rival_notes(run.outputs)]
        return replace(
            report,
            entries=(*entries, *self.alone_in_torch(), *self.alone_in_mlx()),
            outputs=tuple(outputs),
            notes=(*report.notes, *notes),
        )

    def described(self, entry: ParityEntry, found: MatchedCall | None) -> ParityEntry:
        """Return an entry with what was found about its call."""
        target = self.pairing.pairs.get(entry.path, "")
        if found is None:
            return replace(entry, target=target)
        skipped = dict(entry.skipped)
        for mode, reason in ((IN_PLACE, found.problem), (ALONE, found.problem or found.obstacle)):
            if mode in skipped and reason:
                skipped[mode] = reason
        places = found.record.results or range(len(found.outputs))
        orders = dict(zip(places, found.outputs, strict=False))
        order = None if found.problem or entry.output not in orders else orders[entry.output].order
        return replace(entry, target=found.record.target, order=order, skipped=skipped)

    def alone_in_torch(self) -> list[ParityEntry]:
        """Return an entry for every module of PyTorch that has no counterpart."""
        return [
            ParityEntry(path, skipped=dict.fromkeys((IN_PLACE, ALONE), reason))
            for path, reason in self.pairing.in_torch.items()
        ]

    def alone_in_mlx(self) -> list[ParityEntry]:
        """Return an entry for every module of the MLX model that has no counterpart."""
        modules = modules_at(self.model, self.pairing.in_mlx)
        reason = "in the MLX model alone: no module of PyTorch has its name"
        return [
            ParityEntry(
                path,
                layer=type(modules[path]).__name__,
                skipped=dict.fromkeys((IN_PLACE, ALONE), reason),
                target=path,
            )
            for path in self.pairing.in_mlx
        ]


def _callable_paths(module: torch.nn.Module) -> list[str]:
    return [
        path
        for path, part in module.named_modules(remove_duplicate=False)
        if path and type(part).forward is not torch.nn.Module.forward
    ]


def _stored(shape: tuple[int, ...], order: AxisOrder) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in order)


def _inputs_note(way: MlxArguments) -> list[str]:
    spoken = ", ".join(str(order) for order in way.orders)
    return [f"inputs given to MLX with PyTorch's axes {spoken}"] if way.orders else []


def _rival_notes(outputs: Sequence[OrderMatch]) -> list[str]:
    return [
        f"output {k} agrees in the orders {', '.join(map(str, (one.order, *one.rivals)))} alike: "
        "verify with inputs that tell them apart (random, of sizes that all differ)"
        for k, one in enumerate(outputs)
        if one.recognised and one.rivals
    ]
