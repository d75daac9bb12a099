"""Measure how far PyTorch's values move where inputs and parameters are a few roundings off.

One run is a poor measure of PyTorch's noise: in a small tensor it may be exactly right by luck,
and what takes the difference of near equals (a norm of values far from zero) moves by more than
one run shows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from mlxport.converter.parity.reference.copies import perturbed
from mlxport.converter.parity.reference.recorded_values import RecordedTensor, tensors
from mlxport.converter.parity.verdict.compare import l2_norm
from mlxport.converter.parity.verdict.precision import PRECISIONS
from mlxport.converter.parity.verdict.reference_data import NumpyArray, ReferenceValue
from mlxport.converter.torch_model.calls import CallArguments, every_module_called
from mlxport.converter.torch_model.model_state import eval_mode

_logger = logging.getLogger(__name__)

PERTURBED_RUNS = 2  # that tell how far rounding moves the values
_RUNS_OF_FEW_VALUES = 16  # a single value is near the truth by luck now and then
_FEW = 10


def perturbed_runs(values: Iterable[ReferenceValue]) -> int:
    """Return in how many runs to look how far some values move."""
    few = any(math.prod(value.shape) <= _FEW for value in values)
    return _RUNS_OF_FEW_VALUES if few else PERTURBED_RUNS


def distance(values: NumpyArray, value: ReferenceValue) -> float:
    """Return how far values are from the reference; 0 where they are not finite."""
    with np.errstate(all="ignore"):
        found = l2_norm(values - value.reference)
    return found if math.isfinite(found) else 0.0


def distances(values: Sequence[ReferenceValue], others: Sequence[RecordedTensor]) -> list[float]:
    """Return how far another run is from each reference; 0 where that cannot be said."""
    if [value.shape for value in values] != [other.shape for other in others]:
        return [0.0] * len(values)
    pairs = zip(values, others, strict=True)
    return [distance(o.values, v) if v.dtype in PRECISIONS else 0.0 for v, o in pairs]


def farthest(before: Sequence[float], now: Sequence[float]) -> list[float]:
    """Return the larger of each pair."""
    return list(map(max, before, now))


def moved_alone(
    module: torch.nn.Module, given: CallArguments, values: Sequence[ReferenceValue]
) -> list[float]:
    """Run one module alone, a few roundings off, and return how far each of its results moves.

    Args:
        module: the torch module; it is left as it is.
        given: what it was called with.
        values: what was recorded of that call, sampled as is to be now.
    """
    found = [0.0] * len(values)
    for number in range(perturbed_runs(values)):
        try:
            with (
                torch.random.fork_rng(devices=[]),
                torch.no_grad(),
                every_module_called(),
                eval_mode(module),
                perturbed(module, given, number) as (args, kwargs),
            ):
                leaves = tensors(module(*args, **kwargs))
                indices = [value.indices for value in values]
                others = [RecordedTensor(*pair) for pair in zip(leaves, indices, strict=True)]
        except Exception:  # whatever the module's code raises; it is judged by one run then
            _logger.debug("%s does not run a few roundings off", type(module), exc_info=True)
            return found
        found = farthest(found, distances(values, others))
    return found
