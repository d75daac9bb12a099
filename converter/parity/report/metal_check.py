"""What MLX's sources say of a model's calls on Metal, for the parity report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlxport.converter.plan.json_data import Count, to_data

_LISTED = 8


@dataclass(frozen=True)
class MetalRemark:
    """One kind of call that MLX's Metal backend refuses, or computes otherwise than its CPU's.

    Attributes:
        call: the primitive and its dtypes.
        effect: ``refused``, ``rounds more`` or ``unfolds``.
        reason: why.
        layer: qualified name of the module that calls; empty for the model itself.
        line: of model.py; 0 where no line of it is at work.
        times: how often, in one call of the model.
    """

    call: str
    effect: str
    reason: str
    layer: str
    line: Count
    times: Count

    @property
    def refused(self) -> bool:
        """Whether the model fails there."""
        return self.effect == "refused"

    def __str__(self) -> str:
        where = self.layer or "the model"
        line = f", line {self.line} of model.py" if self.line else ""
        times = f" ({self.times} times)" if self.times > 1 else ""
        return f"{where}{line}: {self.call}{times} {self.effect}: {self.reason}"


@dataclass(frozen=True)
class MetalCheck:
    """The calls of a model beside the table of what MLX's Metal backend takes.

    No run: what it says holds for the sources of MLX the table was read from.

    Attributes:
        mlx: the newest version of MLX the table was read from.
        kinds: how many kinds of call the model makes, by primitive and dtypes.
        remarks: those that are refused on Metal first, then those it computes otherwise.
        unknown: calls whose primitives MLX does not tell, by the names of their functions.
    """

    mlx: str
    kinds: Count
    remarks: tuple[MetalRemark, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def obstacles(self) -> list[MetalRemark]:
        """What Metal refuses."""
        return [remark for remark in self.remarks if remark.refused]

    def sentences(self) -> Iterator[str]:
        """Yield the line of a report, then a line for each of the first obstacles."""
        refused = self.obstacles
        kinds = f"Metal: {self.kinds} kind{'' if self.kinds == 1 else 's'} of call"
        unknown = f"; not looked up: {', '.join(self.unknown)}" if self.unknown else ""
        if not refused:
            yield f"{kinds}, no known obstacle in MLX {self.mlx}{unknown}"
            return
        yield f"{kinds}, {len(refused)} refused by MLX {self.mlx}{unknown}"
        yield from (str(remark) for remark in refused[:_LISTED])
        if len(refused) > _LISTED:
            yield f"and {len(refused) - _LISTED} more"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        data: dict[str, Any] = to_data(self)
        return data

    def to_text(self) -> str:
        """Return all of it, a line each."""
        first = next(self.sentences())
        return "\n".join([first, *(f"  {remark}" for remark in self.remarks)])
