"""Judge one tensor: is MLX's value as close to the truth as PyTorch's in the model's dtype?

The truth is PyTorch's value in float64 (the *reference*); the *noise* is what PyTorch itself loses
in the model's own dtype (the *native* value). There is no absolute tolerance, so a fault of 1e-6 in
a tensor of 1e-6 is as visible as any. Numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.verdict.dynamo import dynamo_passes
from mlxport.converter.parity.verdict.judgement import (
    DEFAULT_JUDGEMENT,
    MOVE_MULTIPLE,
    NOISE_MULTIPLE,
    Judgement,
)
from mlxport.converter.parity.verdict.precision import EXACT, PRECISIONS
from mlxport.converter.parity.verdict.reference_data import NumpyArray
from mlxport.converter.plan.json_data import Count, Real

Index = tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """What the comparison of one tensor found.

    A number that is not defined (nothing was compared, a cosine with a zero tensor, an ULP of
    integers) is None.

    Attributes:
        passed: whether everything agrees.
        problems: what does not agree, in words; empty where the verdict is passed.
        shape: PyTorch's shape.
        dtype: PyTorch's dtype, by name.
        reference_dtype: dtype the reference was computed in; ``"float64"`` wherever possible.
        noise_multiple: the largest ratio that passes.
        compared: positions that entered the error (finite in all three tensors).
        nonfinite: positions where MLX's value is NaN or infinite.
        misplaced: positions where NaN, +∞ or −∞ is in only one of MLX's and PyTorch's values.
        error: relative L2 error of MLX, ``‖actual − reference‖ / ‖reference‖``; the absolute norm
            where the reference is zero; the share of positions that differ for integers.
        noise: the same for PyTorch's value in the model's own dtype. Where that would not pass and
            PyTorch's value moves farther when inputs and parameters are a few roundings off, for
            the value that has moved.
        ratio: error over noise, the noise being at least one rounding of the dtype.
        dynamo: whether it passes by PyTorch's own criterion; see `dynamo_passes`.
        max_abs: largest absolute difference.
        max_ulp: ``max_abs`` in units of the dtype's spacing at the largest magnitude of the
            reference. One unit for the whole tensor: where terms cancel, the spacing at the
            element itself says nothing about the computation.
        cosine: of the angle between actual and reference, both seen as vectors.
        snr_db: signal-to-noise ratio, ``20 log10(‖reference‖ / ‖actual − reference‖)``.
        first: index, in PyTorch's axis order, of the first position at fault; a complex tensor
            has a last axis of two for the real and imaginary parts.
    """

    passed: bool = field(init=False)
    problems: tuple[str, ...]
    shape: tuple[Count, ...]
    dtype: str
    reference_dtype: str = "float64"
    noise_multiple: Real = NOISE_MULTIPLE
    compared: Count = 0
    error: Real | None = None
    noise: Real | None = None
    ratio: Real | None = None
    max_abs: Real | None = None
    max_ulp: Real | None = None
    cosine: Real | None = None
    snr_db: Real | None = None
    first: tuple[Count, ...] | None = None
    nonfinite: Count = 0
    misplaced: Count = 0
    dynamo: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "passed", not self.problems)


def judge(
    actual: NumpyArray,
    reference: NumpyArray,
    native: NumpyArray,
    *,
    dtype: str,
    shape: Index | None = None,
    indices: NumpyArray | None = None,
    actual_dtype: str | None = None,
    judgement: Judgement = DEFAULT_JUDGEMENT,
    reference_dtype: str = "float64",
    moved: float = 0.0,
) -> Verdict:
    """Judge MLX's value of one tensor.

    Passed where shape and dtype agree, NaN, +∞ and −∞ are where PyTorch's native value has them,
    and the error over the positions that are finite in all three is at most the noise multiple
    times PyTorch's noise, or one rounding of the dtype where that is more: a relative one
    (unit roundoff times ``‖reference‖``) plus an absolute one (the distance between
    neighbours next to zero, per element), which is what is left of the floor where the reference
    is all zeros. There MLX must then be zero too, except as far as PyTorch is not.

    PyTorch may be nearly exact by luck, above all in small tensors. So what would not pass is
    judged once more by how far PyTorch's values move where inputs and parameters are a few
    roundings off: it passes within `MOVE_MULTIPLE` times that. Not where the noise multiple is
    less: who asks for so much asks for it of one run.

    Integers and booleans are equal, position by position, to PyTorch's native value or to the
    reference: where these two differ (an argmax between near equals), either is right.

    Args:
        actual: MLX's value in PyTorch's axis order, in any real or complex dtype of numpy.
        reference: PyTorch's value in float64 (integers as they are).
        native: PyTorch's value in the model's own dtype, widened. The reference itself where that
            could not be computed in float64: the noise is then one rounding.
        dtype: name of PyTorch's dtype (``"bfloat16"``), which numpy may not have.
        shape: PyTorch's shape, where ``reference`` and ``native`` hold samples.
        indices: flat indices of the samples; None where ``reference`` and ``native`` are whole.
        actual_dtype: name of the dtype MLX returned; taken to be ``dtype`` if not given.
        judgement: what passes.
        reference_dtype: dtype the reference was computed in, kept in the verdict.
        moved: how far PyTorch's values move, as L2 norm; 0 where that is not known.

    Raises:
        ParityError: ``dtype`` cannot be judged, or ``native`` and ``reference`` differ in shape.
    """
    if dtype not in PRECISIONS and dtype not in EXACT:
        known = ", ".join(sorted([*PRECISIONS, *EXACT]))
        raise ParityError(f"cannot judge values of dtype {dtype!r}; known are {known}")
    shape = tuple(reference.shape) if shape is None else shape
    if native.shape != reference.shape or (indices is not None and indices.size != reference.size):
        raise ParityError(
            f"native {native.shape} and reference {reference.shape} of one tensor differ in shape, "
            f"or from their {'no' if indices is None else indices.size} indices"
        )
    problems, comparable = _form(actual, actual_dtype or dtype, shape, dtype)
    verdict = Verdict(tuple(problems), shape, dtype, reference_dtype, judgement.noise_multiple)
    if not comparable:
        return _with(verdict, dynamo=False)
    values = (_flat(actual, indices), reference.reshape(-1), native.reshape(-1))
    if dtype in PRECISIONS:
        return _judge_floats(verdict, *values, indices, moved)
    return _judge_exact(verdict, *values, indices)


def _form(
    actual: NumpyArray, actual_dtype: str, shape: Index, dtype: str
) -> tuple[list[str], bool]:
    """Return the problems of dtype and shape, and whether the values can be compared at all."""
    problems = []
    comparable = np.iscomplexobj(actual) == dtype.startswith("complex")
    if actual_dtype != dtype or not comparable:
        problems.append(
            f"dtype: PyTorch gives {dtype}, MLX {actual_dtype} (here as {actual.dtype})"
        )
    if tuple(actual.shape) != shape:
        problems.append(f"shape: PyTorch gives {shape}, MLX {tuple(actual.shape)}")
        comparable = False
    return problems, comparable


def _flat(actual: NumpyArray, indices: NumpyArray | None) -> NumpyArray:
    if indices is None:
        return actual.reshape(-1)
    if actual.flags.c_contiguous:
        return np.asarray(actual.reshape(-1)[indices])
    # not through a flattened copy: the tensor may be large and a transposed view
    return np.asarray(actual[np.unravel_index(indices, actual.shape)])


def _judge_floats(
    verdict: Verdict,
    actual: NumpyArray,
    reference: NumpyArray,
    native: NumpyArray,
    indices: NumpyArray | None,
    moved: float,
) -> Verdict:
    dynamo = dynamo_passes(verdict.dtype, verdict.shape, actual, reference, native)
    verdict = _with(verdict, dynamo=dynamo and not verdict.problems)
    actual, reference, native = (_reals(x) for x in (actual, reference, native))
    misplaced = _kinds(actual) != _kinds(native)
    finite = np.isfinite(actual) & np.isfinite(reference) & np.isfinite(native)
    count = int(np.count_nonzero(finite))
    problems = list(verdict.problems)
    first = None
    verdict = _with(
        verdict,
        nonfinite=int(np.count_nonzero(~np.isfinite(actual))),
        misplaced=int(np.count_nonzero(misplaced)),
    )
    if verdict.misplaced:
        at = int(np.argmax(misplaced))
        first = _index(at, verdict, indices)
        problems.append(
            f"NaN or infinity in other places: PyTorch's own value at {first} is {native[at]:g}, "
            f"MLX's {actual[at]:g}; {verdict.misplaced:,} positions differ"
        )
    if count == 0:
        return _with(verdict, problems=tuple(problems), first=first)
    three = actual, reference, native
    if count < finite.size:
        three = actual[finite], reference[finite], native[finite]
    numbers = _measure(verdict.dtype, *three)
    if moved and numbers["ratio"] > verdict.noise_multiple >= MOVE_MULTIPLE:
        again = _measure(verdict.dtype, *three, moved)
        numbers = again if again["ratio"] <= MOVE_MULTIPLE else numbers
    if numbers["ratio"] > verdict.noise_multiple:
        if first is None:
            with np.errstate(over="ignore", invalid="ignore"):
                apart = np.where(finite, np.abs(actual - reference), 0.0)
            first = _index(_first_above(apart, numbers, verdict.noise_multiple), verdict, indices)
        problems.append(
            f"error {numbers['error']:.2g} is {numbers['ratio']:.3g} times PyTorch's own noise "
            f"({numbers['noise']:.2g}; at most {verdict.noise_multiple:g} times passes), "
            f"first at {first}"
        )
    del numbers["limit"]
    return _with(verdict, problems=tuple(problems), compared=count, first=first, **numbers)


def _measure(
    dtype: str,
    actual: NumpyArray,
    reference: NumpyArray,
    native: NumpyArray,
    moved: float = 0.0,
) -> dict[str, Any]:
    precision = PRECISIONS[dtype]
    with np.errstate(over="ignore"):  # infinitely far off is far enough
        difference = actual - reference
    size, lost, noise = (l2_norm(x) for x in (reference, difference, native - reference))
    noise = max(noise, moved)
    rounding = precision.roundoff * size + precision.tiniest * math.sqrt(actual.size)
    yardstick = max(noise, rounding)
    unit = size or 1.0
    largest = float(np.max(np.abs(difference)))
    return {
        "error": lost / unit,
        "noise": noise / unit,
        "ratio": lost / yardstick,
        "limit": yardstick / math.sqrt(actual.size),
        "max_abs": largest,
        "max_ulp": largest / precision.spacing(float(np.max(np.abs(reference)))),
        "cosine": _cosine(actual, reference),
        "snr_db": _decibels(size, lost),
    }


def _judge_exact(
    verdict: Verdict,
    actual: NumpyArray,
    reference: NumpyArray,
    native: NumpyArray,
    indices: NumpyArray | None,
) -> Verdict:
    if actual.size == 0:
        return verdict
    dynamo = dynamo_passes(verdict.dtype, verdict.shape, actual, reference, native)
    verdict = _with(verdict, dynamo=dynamo and not verdict.problems)
    wrong = (actual != native) & (actual != reference)
    count = int(np.count_nonzero(wrong))
    apart = np.abs(np.subtract(actual, native, dtype=np.float64))
    numbers = {
        "compared": int(actual.size),
        "error": count / actual.size,
        "noise": float(np.count_nonzero(native != reference)) / actual.size,
        "ratio": float("inf") if count else 0.0,
        "max_abs": float(np.max(np.where(wrong, apart, 0.0))),
    }
    if not count:
        return _with(verdict, **numbers)
    at = int(np.argmax(wrong))
    first = _index(at, verdict, indices)
    problem = (
        f"{count:,} of {actual.size:,} positions differ, first at {first}: "
        f"PyTorch {native[at]}, MLX {actual[at]}"
    )
    return _with(verdict, problems=(*verdict.problems, problem), first=first, **numbers)


def _with(verdict: Verdict, **changes: Any) -> Verdict:
    return replace(verdict, **changes)


def _reals(values: NumpyArray) -> NumpyArray:
    if np.iscomplexobj(values):
        return np.ascontiguousarray(values, dtype=np.complex128).view(np.float64)
    return np.asarray(values, dtype=np.float64)


def _kinds(values: NumpyArray) -> NumpyArray:
    """Return 0 where finite, 1 at NaN, 2 at +∞, 3 at −∞."""
    if np.isfinite(values).all():
        return np.zeros(values.shape, int)
    return np.select([np.isnan(values), np.isposinf(values), np.isneginf(values)], [1, 2, 3], 0)


def l2_norm(values: NumpyArray) -> float:
    """Return the L2 norm of values of any magnitude; infinity or NaN where one of them is."""
    values = _reals(values)
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    # scaled, so that squares neither overflow nor vanish; in two steps, as 1 / largest may overflow
    exponent = np.frexp(largest)[1]
    squares = np.square(np.ldexp(values, -exponent))
    # summed pairwise, and not by a BLAS whose idle threads would wait for every small array
    return float(np.ldexp(np.sqrt(squares.sum()), exponent))


def _cosine(actual: NumpyArray, reference: NumpyArray) -> float | None:
    sizes = l2_norm(actual), l2_norm(reference)
    if 0.0 in sizes:
        return None
    products = (actual / sizes[0]) * (reference / sizes[1])
    return float(np.clip(products.sum(), -1.0, 1.0))


def _decibels(signal: float, noise: float) -> float | None:
    if signal == 0:
        return None
    return float(20 * (np.log10(signal) - np.log10(noise))) if noise else float("inf")


def _first_above(off: NumpyArray, numbers: dict[str, Any], multiple: float) -> int:
    """Return the first position whose error is above what is allowed on average; one is."""
    above = off > multiple * numbers["limit"]
    return int(np.argmax(above if above.any() else off))


def _index(position: int, verdict: Verdict, indices: NumpyArray | None) -> Index:
    """Return the index in the tensor of a position among the flat values compared."""
    shape = (*verdict.shape, 2) if verdict.dtype.startswith("complex") else verdict.shape
    if indices is not None:
        pairs = 2 if verdict.dtype.startswith("complex") else 1
        position = int(indices[position // pairs]) * pairs + position % pairs
    return tuple(int(i) for i in np.unravel_index(position, shape))
