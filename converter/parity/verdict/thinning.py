"""Keep fewer values of references, so that what is stored of them is no larger than it need be.

Every layer keeps values: fewer of the calls that have many. Needs neither torch nor mlx.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mlxport.converter.parity.verdict.reference_data import (
    Reference,
    ReferenceValue,
    sample_indices,
)

# About how many values of one tensor are kept in any case: noise is told from as many.
LEAST = 256
_NARROW = ("float16", "bfloat16", "float32")


def within(references: Sequence[Reference], limit: int) -> tuple[Reference, ...]:
    """Return references with as many values as fit.

    Fewer values of the layers first; of the outputs, which reports show, where that is not enough.

    Args:
        references: of one model.
        limit: bytes of all their arrays together. The inputs are kept whole and `LEAST` values of
            each tensor, even where these are more.

    Returns:
        The references; how far values move (`ReferenceValue.moved`) is what is to be expected of
        those that are left.
    """
    most = max((value.reference.size for r in references for value in _values(r)), default=0)
    for outputs in (False, True):
        sample = most
        while True:
            if sum(_bytes(reference, sample, outputs) for reference in references) <= limit:
                return tuple(_thinned(reference, sample, outputs) for reference in references)
            if sample <= LEAST:
                break
            sample = max(sample // 2, LEAST)
    return tuple(_thinned(reference, LEAST, outputs=True) for reference in references)


def _values(reference: Reference) -> Iterator[ReferenceValue]:
    yield from reference.outputs
    for call in reference.calls:
        yield from call.outputs


def _bytes(reference: Reference, sample: int, outputs: bool) -> int:
    """Return the bytes of a reference's arrays, with at most ``sample`` values of a tensor."""
    total = sum(tensor.bits.nbytes for tensor in reference.inputs)
    total += sum(
        draw.values.size * (8 if draw.dtype == "float64" else 4) for draw in reference.draws
    )
    places = set()
    for number, value in enumerate(_values(reference)):
        whole = number < len(reference.outputs) and not outputs
        kept = value.reference.size if whole else min(sample, value.reference.size)
        native = 4 if value.dtype in _NARROW else value.native.itemsize
        total += kept * (value.reference.itemsize + native)
        if value.indices is not None or kept < value.reference.size:
            places.add((math.prod(value.shape), value.reference.size, kept))
    return total + sum(8 * kept for _, _, kept in places)


def _thinned(reference: Reference, sample: int, outputs: bool) -> Reference:
    seed = reference.seed
    calls = tuple(
        replace(call, outputs=tuple(_fewer(value, sample, seed) for value in call.outputs))
        for call in reference.calls
    )
    reference = replace(reference, calls=calls, sample=min(sample, reference.sample))
    if not outputs:
        return reference
    fewer = tuple(_fewer(value, sample, seed) for value in reference.outputs)
    return replace(reference, outputs=fewer)


def _fewer(value: ReferenceValue, sample: int, seed: int) -> ReferenceValue:
    places = sample_indices(value.reference.size, sample, seed)
    if places is None:
        return value
    return replace(
        value,
        reference=value.reference[places],
        native=value.native[places],
        indices=places if value.indices is None else value.indices[places],
        moved=value.moved * math.sqrt(places.size / value.reference.size),
    )
