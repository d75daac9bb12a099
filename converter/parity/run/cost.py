"""Measure what a change of the weights (quantising them) does to a model's outputs.

The same torch model is compared in float64 before and after, so the figures contain no rounding of
MLX's; they are no verdict. Numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mlxport.converter.parity.verdict.compare import judge
from mlxport.converter.parity.verdict.reference_data import Reference, ReferenceValue
from mlxport.converter.plan.quantize_step import Cost


def output_costs(before: Reference, after: Reference, names: Sequence[str]) -> tuple[Cost, ...]:
    """Return how far each output of the model moves."""
    pairs = zip(names, before.outputs, after.outputs, strict=True)
    return tuple(cost for name, old, new in pairs for cost in _cost(name, old, new))


def layer_costs(before: Reference, after: Reference) -> tuple[Cost, ...]:
    """Return how far the first result of each call of a module moves, in the order of the calls."""
    return tuple(_layer_costs(before, after))


def _layer_costs(before: Reference, after: Reference) -> Iterator[Cost]:
    later = {(call.path, call.number): call for call in after.calls}
    for call in before.calls:
        other = later.get((call.path, call.number))
        if other is not None and call.outputs and len(call.outputs) == len(other.outputs):
            name = call.path + (f" call {call.number}" if call.number else "")
            yield from _cost(name, call.outputs[0], other.outputs[0])


def _cost(name: str, before: ReferenceValue, after: ReferenceValue) -> Iterator[Cost]:
    """Yield the cost of one tensor; nothing where values became infinite, or none was compared."""
    found = judge(after.reference, before.reference, before.native, dtype=before.dtype)
    if found.error is not None and math.isfinite(found.error) and not found.misplaced:
        ratio = found.snr_db
        finite = ratio is not None and math.isfinite(ratio)
        yield Cost(name, found.error, ratio if finite else None, found.cosine)
