"""Verify an MLX model written by hand on other kinds of inputs and at other batch sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import mlx.core as mx
import torch

from mlxport.converter.errors import OptionsError, ParityError
from mlxport.converter.parity.hand_port.input_orders import (
    MlxArguments,
    MlxInputs,
    explicit_arguments,
    ordered_arguments,
)
from mlxport.converter.parity.hand_port.port import HandPort, PortRun
from mlxport.converter.parity.reference.recorded_values import tensors
from mlxport.converter.parity.reference.trials import Trial, Trials, batched, recorded_trials
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.verify import failed_run, verify_live
from mlxport.converter.parity.verdict.judgement import Judgement
from mlxport.converter.torch_model.calls import CallArguments


class PortTrials:
    """Further runs of a port whose axis orders are known."""

    def __init__(
        self,
        port: HandPort,
        run: PortRun,
        module: torch.nn.Module,
        given: CallArguments,
        mlx_inputs: MlxInputs | None,
        judgement: Judgement,
    ) -> None:
        self.port, self.run, self.module, self.given = port, run, module, given
        self.mlx_inputs, self.judgement = mlx_inputs, judgement
        self.notes: list[str] = []
        if mlx_inputs is not None and isinstance(mlx_inputs, mx.array | Mapping | Sequence):
            raise OptionsError(
                "mlx_inputs= are arrays, of which no other inputs than the example can be made: "
                "give a function that makes them of PyTorch's inputs as arrays"
            )

    def reports(self, trials: Trials) -> Iterator[ParityReport]:
        """Yield the report of each trial; note what cannot be tried."""
        calls = [*trials.of_kinds(self.given), *self.of_batch_sizes(trials.batch_sizes or ())]
        given = {trial.case: trial.given for trial in calls}
        paths = list(self.port.pairing.pairs)
        conversion = self.port.conversion(self.run)
        for reference in recorded_trials(self.module, calls, paths, self.notes):
            arguments = self.arguments(given[reference.case])
            try:
                report = verify_live(
                    self.port.model,
                    conversion,
                    reference,
                    inputs=(arguments.args, arguments.kwargs),
                    judgement=self.judgement,
                )
            except ParityError as error:
                model = self.port.model
                yield failed_run(model, reference, str(error), self.judgement)
                continue
            yield self.port.annotated(report, self.run)

    def arguments(self, given: CallArguments) -> MlxArguments:
        """Return what the MLX model is called with, in the orders found."""
        if self.mlx_inputs is not None:
            return explicit_arguments(self.mlx_inputs, given)
        return ordered_arguments(given, self.run.arguments.orders)

    def of_batch_sizes(self, sizes: Sequence[int]) -> Iterator[Trial]:
        """Yield a call at each batch size but the example's."""
        inputs = tensors(self.given)
        first = next((len(x) for x in inputs if x.ndim), 0)
        moves = [x.ndim > 0 and len(x) == first for x in inputs]
        orders = self.run.arguments.orders
        without = any(
            moving and 0 not in order for order, moving in zip(orders, moves, strict=False)
        )
        for size in sizes:
            if without and size > 1:
                self.notes.append(f"batch size {size} not judged: the MLX model takes no batch")
            elif size != first:
                yield Trial(f"batch size {size}", batched(self.given, size, moves))
