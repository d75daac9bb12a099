"""Verify the gradients of an MLX model against those of the torch model it was converted from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.nn as nn
import torch

from mlxport.converter.parity.reference.torch_gradients import perturbed_gradients, record_gradients
from mlxport.converter.parity.run.gradients import judge_gradients
from mlxport.converter.parity.run.state_runs import StateRuns
from mlxport.converter.parity.verdict.entry import BACKWARD, ParityEntry
from mlxport.converter.parity.verdict.judgement import DEFAULT_JUDGEMENT, MOVE_MULTIPLE, Judgement
from mlxport.converter.parity.verdict.reference_data import Gradients, Reference
from mlxport.converter.plan.record import Conversion
from mlxport.converter.plan.weight_plan import WeightPlan


@dataclass(frozen=True, eq=False)
class TorchModel:
    """The torch model, the arguments it is called with, and the reference of that call."""

    module: torch.nn.Module
    args: Sequence[Any]
    kwargs: Mapping[str, Any] | None
    reference: Reference


def verify_gradients(
    model: nn.Module,
    conversion: Conversion,
    origin: TorchModel,
    *,
    plan: WeightPlan,
    given: tuple[Sequence[Any], Mapping[str, Any]] | None = None,
    judgement: Judgement = DEFAULT_JUDGEMENT,
) -> tuple[ParityEntry, ...]:
    """Judge the gradients of a model's inputs and parameters; see `judge_gradients`.

    What fails is judged once more, by how far PyTorch's gradients move where inputs and parameters
    are moved by a few roundings: of millions of activations some are so near to the kink of a ReLU
    that rounding decides, and one of them shows in every gradient before it.

    Args:
        model: the MLX model, in eval mode.
        conversion: the record of its conversion.
        origin: where it comes from.
        plan: of the weights, by the names of the torch model.
        given: what to call the MLX model with instead of the reference's inputs.
        judgement: what passes.
    """
    reference = origin.reference
    call = (origin.module, origin.args, origin.kwargs)

    def judged(gradients: Gradients, judgement: Judgement) -> tuple[ParityEntry, ...]:
        with StateRuns(model, conversion.state).from_the_beginning():
            return judge_gradients(
                model,
                conversion,
                reference,
                gradients,
                plan=plan,
                given=given,
                judgement=judgement,
            )

    gradients = record_gradients(*call, reference=reference)
    first = judged(gradients, judgement)
    if not any(BACKWARD in entry.failing for entry in first):
        return first
    moved = perturbed_gradients(*call, reference=reference, gradients=gradients)
    stricter = Judgement(min(MOVE_MULTIPLE, judgement.noise_multiple))
    second = judged(moved, stricter)
    pairs = zip(first, second, strict=True)
    return tuple(one if not one.failing else _better(one, other) for one, other in pairs)


def _better(first: ParityEntry, second: ParityEntry) -> ParityEntry:
    """Return the second verdict where it passes; else the first, whose noise is the usual one."""
    return first if second.failing else replace(first, verdicts=second.verdicts)
