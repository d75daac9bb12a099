"""Run an MLX model written by hand beside a torch model, and describe it as a conversion would.

The description (a `Conversion`) says which module is which and in what axis order values are
stored, so that the model can be verified as a converted one is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import mlx.nn as nn

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.hand_port.infer_order import (
    AxisOrder,
    OrderMatch,
    customary_orders,
    infer_order,
    torch_order,
)
from mlxport.converter.parity.hand_port.input_orders import (
    MlxArguments,
    OrderSpec,
    parse_orders,
)
from mlxport.converter.parity.hand_port.match_calls import CallMatcher, MatchedCall
from mlxport.converter.parity.hand_port.pair_modules import Pairing
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.layouts import to_numpy
from mlxport.converter.parity.run.trace import arrays, modules_at, trace
from mlxport.converter.parity.verdict.entry import ALONE, IN_PLACE, ParityEntry
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.plan.record import Conversion, Layout, ModuleRecord
from mlxport.converter.plan.weight_plan import WeightPlan

_logger = logging.getLogger(__name__)


class PortRun:
    """One run of the MLX model, and the axis orders it shows."""

    def __init__(
        self, arguments: MlxArguments, matcher: CallMatcher, outputs: list[OrderMatch]
    ) -> None:
        self.arguments, self.matcher = arguments, matcher
        self.outputs = outputs

    @property
    def score(self) -> tuple[int, int]:
        """How many of the model's outputs are recognised, and how many of the modules' calls."""
        calls = sum(found.recognised for found in self.matcher.found)
        return sum(one.recognised for one in self.outputs), calls

    @property
    def complete(self) -> bool:
        """Whether no other order of the inputs could show more."""
        found = self.matcher.found
        return all(o.recognised for o in self.outputs) and all(
            one.recognised or one.problem for one in found
        )


class HandPort:
    """An MLX model written by hand, paired with a torch model, and that one's reference."""

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
        self.outputs_order: Sequence[AxisOrder] | None = (
            None if outputs_order is None else parse_orders(outputs_order, ranks, "outputs_order")
        )

    def best_run(self, candidates: Iterable[MlxArguments]) -> PortRun:
        """Run the model on inputs in one order after another, until PyTorch's values appear."""
        runs, failures = [], []
        for arguments in candidates:
            try:
                run = self.run(arguments)
            except ParityError as error:
                failures.append(str(error))
                _logger.debug("the model does not run on %s: %s", arguments, error)
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
            run.matcher.complete_alone()
        # where a fault in the first layer hides the order: with the right one, orders hardly vary
        return min(best, key=lambda run: run.matcher.variety())

    def run(self, arguments: MlxArguments) -> PortRun:
        """Run the model once and infer the axis orders from the values."""
        by_module: dict[int, list[str]] = {}
        targets: dict[int, str] = {}
        for path, target in self.pairing.pairs.items():
            key = id(self.modules[target])
            by_module.setdefault(key, []).append(path)
            targets.setdefault(key, target)
        matcher = CallMatcher(by_module, targets, self.reference)
        watched = list(self.modules)
        args, kwargs = arguments.args, arguments.kwargs
        result = trace(self.model, args, watched, matcher.observe, named=kwargs)
        values = [to_numpy(array) for array in arrays(result)]
        return PortRun(arguments, matcher, self.results(matcher, values))

    def results(self, matcher: CallMatcher, values: Sequence[Any]) -> list[OrderMatch]:
        """Infer the order of the model's outputs, where not every order is right.

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
            if self.outputs_order is not None:
                orders = [
                    o for o in [self.outputs_order[place]] if _stored(value.shape, o) == array.shape
                ]
            else:
                orders = customary_orders(matcher.orders(value.shape, array), value.shape)
            match = infer_order(array, value.reference, value.shape, value.dtype, orders)
            found.append(match or unfit)
        return found

    def conversion(self, run: PortRun) -> Conversion:
        """Return the record that a conversion of the torch model would have left."""
        records = [found.record for found in run.matcher.found]
        seen = {record.path for record in records}
        aliases = self.reference.aliases
        records += [
            ModuleRecord(path, target, (), ())
            for path, target in self.pairing.pairs.items()
            if aliases.get(path, path) not in seen
        ]
        outputs = tuple(
            Layout(value.shape, value.dtype, match.order)
            for value, match in zip(self.reference.outputs, run.outputs, strict=True)
        )
        root = ModuleRecord("", "", (), outputs)
        return Conversion(plan=WeightPlan(), modules=(*records, root), inputs=())

    def annotated(self, report: ParityReport, run: PortRun) -> ParityReport:
        """Return the report with MLX's paths, the orders found, and the modules not paired."""
        found = {(one.call.path, one.call.number): one for one in run.matcher.found}
        entries = [
            self.described(entry, found.get((entry.path, entry.call))) for entry in report.entries
        ]
        outputs = [
            replace(entry, order=match.order)
            for entry, match in zip(report.outputs, run.outputs, strict=True)
        ]
        notes = [*_inputs_note(run.arguments), *_ambiguity_notes(run.outputs)]
        return replace(
            report,
            entries=(*entries, *self.only_in_torch(), *self.only_in_mlx()),
            outputs=tuple(outputs),
            notes=(*report.notes, *notes),
        )

    def described(self, entry: ParityEntry, found: MatchedCall | None) -> ParityEntry:
        """Return an entry with the MLX module and the axis order of its call."""
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

    def only_in_torch(self) -> list[ParityEntry]:
        """Return an entry for every module of PyTorch that has no counterpart."""
        return [
            ParityEntry(path, skipped=dict.fromkeys((IN_PLACE, ALONE), reason))
            for path, reason in self.pairing.in_torch.items()
        ]

    def only_in_mlx(self) -> list[ParityEntry]:
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


def _stored(shape: tuple[int, ...], order: AxisOrder) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in order)


def _inputs_note(arguments: MlxArguments) -> list[str]:
    orders = ", ".join(str(order) for order in arguments.orders)
    return [f"inputs given to MLX with PyTorch's axes {orders}"] if arguments.orders else []


def _ambiguity_notes(outputs: Sequence[OrderMatch]) -> list[str]:
    return [
        f"output {k} agrees in the orders "
        f"{', '.join(map(str, (one.order, *one.alternatives)))} alike: "
        "verify with inputs that tell them apart (random, of sizes that all differ)"
        for k, one in enumerate(outputs)
        if one.recognised and one.alternatives
    ]
