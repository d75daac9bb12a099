"""One row of a parity report: a tensor that leaves a module, and the verdicts on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mlxport.converter.parity.verdict.compare import Verdict

# How MLX's value came about, in each mode: from what MLX computed so far, each layer evaluated;
# from what PyTorch computed, layer by layer; from the whole model as one lazy graph; from that
# compiled by mx.compile; and, backwards, from the derivative of the whole model.
IN_PLACE, ALONE, WHOLE, COMPILED = "in_place", "alone", "whole", "compiled"
BACKWARD = "gradient"
JUDGED_MODES = (IN_PLACE, ALONE, WHOLE, COMPILED, BACKWARD)


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
        order: which of PyTorch's axes MLX stores where, as found by the values; None where it was
            not looked for, or is not known.
    """

    path: str
    call: int = 0
    output: int = 0
    layer: str = ""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    target: str = ""
    order: tuple[int, ...] | None = None

    @property
    def failing(self) -> tuple[str, ...]:
        """The modes that failed."""
        return tuple(mode for mode, verdict in self.verdicts.items() if not verdict.passed)

    @property
    def judged(self) -> bool:
        """Whether there is a verdict in any mode."""
        return bool(self.verdicts)

    @property
    def ratio(self) -> float:
        """The largest ratio of error to noise in any mode; 0 where none was measured."""
        return max((v.ratio for v in self.verdicts.values() if v.ratio is not None), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON data, without NaN and infinity (they become strings)."""
        return {
            "path": self.path,
            "call": self.call,
            "output": self.output,
            "layer": self.layer,
            "verdicts": {mode: _verdict_to_json(v) for mode, v in self.verdicts.items()},
            "skipped": dict(self.skipped),
            "name": self.name,
            "target": self.target,
            "order": None if self.order is None else list(self.order),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ParityEntry:
        """Build an entry from JSON data."""
        verdicts = {mode: _verdict_from_json(v) for mode, v in data["verdicts"].items()}
        return cls(
            data["path"],
            data["call"],
            data["output"],
            data["layer"],
            verdicts,
            dict(data["skipped"]),
            data.get("name", ""),
            data.get("target", ""),
            None if data.get("order") is None else tuple(data["order"]),
        )


_NUMBERS = ("noise_multiple", "error", "noise", "ratio", "max_abs", "max_ulp", "cosine", "snr_db")
_TUPLES = ("problems", "shape", "first")


def _verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    data: dict[str, Any] = {"passed": verdict.passed}
    for one in fields(verdict):
        value = getattr(verdict, one.name)
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        data[one.name] = list(value) if isinstance(value, tuple) else value
    return data


def _verdict_from_json(data: Mapping[str, Any]) -> Verdict:
    values = {one.name: data[one.name] for one in fields(Verdict) if one.name in data}
    for name in _NUMBERS:
        values[name] = None if values[name] is None else float(values[name])
    for name in _TUPLES:
        values[name] = None if values[name] is None else tuple(values[name])
    return Verdict(**values)
