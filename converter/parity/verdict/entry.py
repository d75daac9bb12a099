"""One row of a parity report: a tensor that leaves a module, and the verdicts on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec

from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.plan.json_data import Count

# How MLX computed the value, in each mode: layer by layer from what MLX computed before; each layer
# alone from PyTorch's inputs; the whole model as one lazy graph; that graph compiled by mx.compile;
# and, backwards, the gradient of the whole model.
IN_PLACE, ALONE, WHOLE, COMPILED = "in_place", "alone", "whole", "compiled"
BACKWARD = "gradient"
# in place of a layer's name, of what a call leaves in the model for later ones
STATE = "state"
JUDGED_MODES = (IN_PLACE, ALONE, WHOLE, COMPILED, BACKWARD)
if TYPE_CHECKING:
    Mode: TypeAlias = str
else:
    Mode = Literal[JUDGED_MODES]


def _outcome(mode: str, verdict: Verdict) -> str:
    ratio = "" if verdict.ratio is None else f" {verdict.ratio:.2g}x"
    outcome = f"{mode}{ratio}" if verdict.passed else f"{mode} FAILED{ratio}"
    if verdict.dynamo in (None, verdict.passed):
        return outcome
    return f"{outcome} (torch._dynamo {'passes' if verdict.dynamo else 'FAILS'} it)"


@dataclass(frozen=True)
class ParityEntry:
    """One tensor of the result of one call of one module, or one gradient.

    Attributes:
        path: the module's qualified name in PyTorch; ``""`` is the model.
        call: how many calls of that module came before.
        output: which of the module's output tensors; which of its gradients.
        layer: name of the MLX class.
        verdicts: mode -> the verdict.
        skipped: mode -> why there is no verdict. A mode that is in neither does not apply.
        name: of one of the model's outputs (``"output.logits"``) or of a gradient (``"gradient of
            encoder.0.weight"``); empty for a module's output.
        target: path of the module in an MLX model written by hand; empty where it was converted.
        order: which of PyTorch's axes MLX stores where, as inferred from the values; None where
            it was not inferred, or is unknown.
    """

    path: str
    call: Count = 0
    output: Count = 0
    layer: str = ""
    verdicts: Mapping[Mode, Verdict] = field(default_factory=dict)
    skipped: Mapping[Mode, str] = field(default_factory=dict)
    name: str = ""
    target: str = ""
    order: tuple[Annotated[int, msgspec.Meta(ge=-1)], ...] | None = None

    @property
    def failing(self) -> tuple[str, ...]:
        """The modes that failed."""
        return tuple(mode for mode, verdict in self.verdicts.items() if not verdict.passed)

    @property
    def label(self) -> str:
        """Its name in a report: ``up2.conv``, ``act call 1``, ``output.logits``."""
        if self.name not in ("", "output"):
            return self.name if self.name.isprintable() else repr(self.name)
        name = self.path or ("the model" if not self.output else "the model's")
        name = name if name.isprintable() else repr(name)
        if self.target not in ("", self.path):
            name += f" (MLX {self.target})" if self.target.isprintable() else ""
        call = f" call {self.call}" if self.call else ""
        return name + call + (f" output {self.output}" if self.output else "")

    def __repr__(self) -> str:
        return f"<ParityEntry {self}>"

    def __str__(self) -> str:
        outcomes = [_outcome(mode, verdict) for mode, verdict in self.verdicts.items()]
        outcomes += [f"{mode} not judged" for mode in self.skipped]
        return f"{self.label}: {', '.join(outcomes) or 'not judged'}"

    @property
    def judged(self) -> bool:
        """Whether there is a verdict in any mode."""
        return bool(self.verdicts)

    @property
    def ratio(self) -> float:
        """The largest ratio of error to noise in any mode; 0 where none was measured."""
        return max((v.ratio for v in self.verdicts.values() if v.ratio is not None), default=0.0)
