"""What a conversion gives back. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxport.converter.plan.record import Conversion
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
