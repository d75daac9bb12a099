"""Verify an MLX model written by hand against its torch model.

Modules are paired by name, axis orders inferred from the values of a run; from then on the model is
verified as a converted one is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.nn as nn
import torch

from mlxport.converter.checkpoint.keys.rename import ModuleNames
from mlxport.converter.errors import OptionsError
from mlxport.converter.parity.hand_port.gradients import verify_port_gradients
from mlxport.converter.parity.hand_port.input_orders import (
    MlxInputs,
    OrderSpec,
    candidate_arguments,
    explicit_arguments,
)
from mlxport.converter.parity.hand_port.pair_modules import pair_modules
from mlxport.converter.parity.hand_port.port import HandPort
from mlxport.converter.parity.hand_port.trials import PortTrials
from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.reference.trials import Trials
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.trace import check_mode
from mlxport.converter.parity.run.verify import verify_live
from mlxport.converter.parity.verdict.judgement import DEFAULT_JUDGEMENT, Judgement
from mlxport.converter.parity.verify_gradients import TorchModel
from mlxport.converter.torch_model.calls import in_order


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
        OptionsError: ``names`` or an order does not fit the models, or several calls are asked for.
        ParityError: the model is in training mode, nothing pairs, or it fails on the inputs.
    """
    asked = trials or Trials()
    if (asked.calls or 1) > 1:
        raise OptionsError("calls: for models that mlxport converted, of which it knows the state")
    check_mode(model)
    tensors = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    pairing = pair_modules(_callable_paths(module), model, names, tensors)
    reference = record_reference(module, args, kwargs, paths=list(pairing.pairs), keep_inputs=True)
    port = HandPort(model, pairing, reference, outputs_order)
    given = in_order(module, args, kwargs)
    candidates = (
        [explicit_arguments(mlx_inputs, given)]
        if mlx_inputs is not None
        else candidate_arguments(given, inputs_order)
    )
    run = port.best_run(candidates)
    report = verify_live(
        model,
        port.conversion(run),
        reference,
        inputs=(run.arguments.args, run.arguments.kwargs),
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
            run.arguments,
            judgement=judgement,
        )
        report = replace(report, gradients=entries)
    if not (asked.kinds or asked.batch_sizes):
        return report
    found = PortTrials(port, run, module, given, mlx_inputs, judgement)
    return replace(report, others=tuple(found.reports(asked)), notes=(*report.notes, *found.notes))


def _callable_paths(module: torch.nn.Module) -> list[str]:
    return [
        path
        for path, part in module.named_modules(remove_duplicate=False)
        if path and type(part).forward is not torch.nn.Module.forward
    ]
