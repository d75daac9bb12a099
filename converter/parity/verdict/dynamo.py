"""PyTorch's criterion for its own compilers, ``torch._dynamo.utils.same``, on NumPy arrays.

Reported beside our verdict, which it does not change. It has a tolerance, 1e-4 absolute and
relative, so that it passes whatever is small, and beyond that asks for 2 times PyTorch's own
error, 3 in half precision, 8 to 10 in small tensors.
"""

from __future__ import annotations

import math

import numpy as np

from mlxport.converter.parity.verdict.precision import PRECISIONS
from mlxport.converter.parity.verdict.reference_data import NumpyArray

TOLERANCE = 1e-4


def dynamo_passes(
    dtype: str,
    shape: tuple[int, ...],
    actual: NumpyArray,
    reference: NumpyArray,
    native: NumpyArray,
) -> bool:
    """Tell whether ``same`` passes, with ``equal_nan`` and the larger multiples for small tensors.

    Args:
        dtype: name of PyTorch's dtype.
        shape: PyTorch's shape.
        actual: MLX's values, or a sample of them.
        reference: PyTorch's in float64.
        native: PyTorch's in the model's own dtype, widened.
    """
    with np.errstate(all="ignore"):
        if np.allclose(actual, native, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            return True
        if dtype not in PRECISIONS:
            return False
        loose = 4e-2
        if (
            np.isnan(native).any()
            and not np.isnan(reference).any()
            and not np.isnan(actual).any()
            and np.allclose(reference, actual, rtol=loose, atol=loose)
        ):
            return True
        own, error = (_rmse(values, reference) for values in (native, actual))
        if math.isnan(own):
            return math.isnan(error)
        return error <= _multiple(dtype, shape) * own + TOLERANCE / 10


def _multiple(dtype: str, shape: tuple[int, ...]) -> float:
    count = math.prod(shape)
    if count <= 10:
        return 10.0
    if count <= 500:
        return 8.0
    if count < 1000 or (len(shape) == 4 and shape[-2:] == (1, 1)):
        return 3.0
    return 3.0 if dtype in ("float16", "bfloat16") else 2.0


def _rmse(values: NumpyArray, reference: NumpyArray) -> float:
    return float(np.sqrt(np.mean(np.square(np.abs(values - reference)))))
