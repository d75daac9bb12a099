"""What a conversion gives back. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxport.converter.plan.record import Conversion
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.timings import Timings

if TYPE_CHECKING:
    import mlx.nn as nn

    from mlxport.converter.parity.report.report import ParityReport


@dataclass(frozen=True)
class Converted:
    """A converted model and the evidence for it.

    Attributes:
        model: the live MLX model, in eval mode; None where weights alone were converted.
        source: the text of ``model.py``; empty where weights alone were converted.
        conversion: the record: weight plan, modules, layouts.
        report: the parity report; None where it was not asked for or there is nothing to hold the
            model to.
        notes: what was done with the checkpoint, one sentence each.
        warnings: what the user should look into.
        timings: how long it took, by stage.
    """

    model: nn.Module | None
    source: str
    conversion: Conversion
    report: ParityReport | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    timings: Timings | None = None


def remember(model: nn.Module, conversion: Conversion, plan: WeightPlan | None = None) -> None:
    """Let a live model know the conversion it comes from, so that it can be verified again.

    Args:
        model: the live model.
        conversion: where it comes from.
        plan: of its weights, by the names of the torch model; the conversion's if not given.
    """
    object.__setattr__(model, "_mlxport_conversion", conversion)
    object.__setattr__(model, "_mlxport_plan", conversion.plan if plan is None else plan)
