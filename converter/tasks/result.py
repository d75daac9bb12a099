"""What a conversion gives back: the model, its record and the evidence. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html import escape
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
        live: gives the live MLX model; None where weights alone were converted.
        source: the text of ``model.py``; empty where weights alone were converted.
        conversion: the record: weight plan, modules, layouts.
        report: the parity report; None where it was not asked for or there is nothing to hold the
            model to.
        notes: what was done with the checkpoint, one sentence each.
        warnings: what the user should look into.
        timings: how long it took, by stage.
        name: of what was converted: the torch class, the factory or the checkpoint's file.
    """

    live: Callable[[], nn.Module] | None
    source: str
    conversion: Conversion
    report: ParityReport | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    timings: Timings | None = None
    name: str = ""

    @cached_property
    def model(self) -> nn.Module | None:
        """The live MLX model, in eval mode; None where weights alone were converted.

        Of a conversion by a plan it is loaded when it is first asked for, which runs the
        ``model.py`` that was copied from beside the plan.

        Raises:
            ConversionError: of a conversion by a plan: it cannot be loaded.
        """
        return None if self.live is None else self.live()

    def __str__(self) -> str:
        plan = self.conversion.plan
        tensors = sum(len(entry.targets) for entry in plan.entries) + len(plan.constants)
        counts = [count_of(tensors, "tensor")]
        if self.live is not None:
            counts.append(f"{count_of(self.conversion.transposes, 'transpose')} in a call")
        lines = [f"{self.name or 'a model'} in MLX: {', '.join(counts)}"]
        lines.append("parity was not judged" if self.report is None else self.report.verdict)
        said = [count_of(len(self.notes), "note")] * bool(self.notes)
        said += [count_of(len(self.warnings), "warning")] * bool(self.warnings)
        return "\n".join([*lines, ", ".join(said)] if said else lines)

    def _repr_html_(self) -> str:
        """Return what was made, and the report, small, for a notebook."""
        head = f"<p>{escape(str(self).partition(chr(10))[0])}</p>"
        return head + ("" if self.report is None else self.report._repr_html_())

    def __repr__(self) -> str:
        return f"<Converted: {self}>"


def count_of(number: int, noun: str) -> str:
    """Return ``1 tensor`` or ``2 tensors``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
