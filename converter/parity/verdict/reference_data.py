"""What PyTorch computed, as data: the reference MLX is judged against, whoever recorded it.

Needs neither torch nor mlx. Values are flat, in PyTorch's axis order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.tensor import Tensor

NumpyArray = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ReferenceValue:
    """One tensor PyTorch computed, whole or sampled.

    Attributes:
        shape: its shape.
        dtype: name of its dtype in the model's own run (``"bfloat16"``).
        reference: flat values from the float64 run (integers and booleans as they are).
        own: flat values from the model's own run, widened to float64; read from a file, to float32
            at least.
        indices: flat indices of the samples, ascending; None where all values are kept.
        reference_dtype: dtype the reference was computed in; where float64 was impossible it is
            the tensor's own, and ``reference`` is ``native``.
    """

    shape: tuple[int, ...]
    dtype: str
    reference: NumpyArray
    native: NumpyArray
    indices: NumpyArray | None = None
    reference_dtype: str = "float64"


@dataclass(frozen=True, eq=False)
class Draw:
    """The standard numbers behind one random draw, in PyTorch's axis order.

    Attributes:
        kind: the function of ``mx.random`` that draws such numbers.
        shape: its shape.
        dtype: name of the dtype the numbers are drawn in; ``"float64"`` where they only decide
            what is drawn (integers, permutations, 0 or 1), whatever the dtype of that.
        values: of ``normal``, mean 0 and deviation 1; of ``gumbel``, the standard ones; of all
            others, from 0 to 1: the place in the range, below the probability or not, the place
            in the cumulated probabilities, or the key to sort by. In float64.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    values: NumpyArray


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one module.

    Attributes:
        path: the module's qualified name; of several, the one first asked for.
        number: how many calls of that module came before.
        outputs: tensors of its result, flattened, as they arose in the model.
        inputs: tensors of its arguments, flattened, in the model's own dtype; None if not kept.
        alone: ``outputs`` again, but with a reference that is this one module in float64 on just
            these ``inputs``, so the noise is that of the module alone; empty if inputs are not
            kept.
        draws: which of the model's random draws were made inside it, from the first to before
            the second.
    """

    path: str
    number: int
    outputs: tuple[ReferenceValue, ...]
    inputs: tuple[Tensor, ...] | None = None
    alone: tuple[ReferenceValue, ...] = ()
    draws: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Reference:
    """One run of a PyTorch model, in its own dtype and in float64.

    Attributes:
        inputs: the model's tensor arguments, flattened, as given.
        outputs: tensors of its result, flattened, whole.
        calls: calls of the modules asked for, in the order in which they returned.
        aliases: qualified name asked for -> the name under which the same module's calls stand.
        dtype: the model's own dtype.
        reference_dtype: ``"float64"``, or ``dtype`` where the model cannot run in float64 (single
            values may still have been computed in it; each says so itself).
        fallback: why it cannot; empty where it can.
        seed: of the random numbers drawn during the run, and of the sampling.
        sample: how many values are kept of one call of a submodule; the model's outputs are whole.
        versions: package name -> version.
        draws: the random draws of the run, in the order of execution; the same in both dtypes.
        signature: how its arguments and its result are nested; None if not known.
        sizes: name of each dynamic size -> what it was; empty where all are static.
        case: what was put in, where it was not the example (``"impulse inputs"``).
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[ReferenceValue, ...]
    calls: tuple[Call, ...]
    aliases: Mapping[str, str]
    dtype: str
    reference_dtype: str = "float64"
    fallback: str = ""
    seed: int = 0
    sample: int = 65536
    versions: Mapping[str, str] = field(default_factory=dict)
    draws: tuple[Draw, ...] = ()
    signature: Signature | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    case: str = ""


@dataclass(frozen=True, eq=False)
class Gradients:
    """What PyTorch's autograd gives for one number made of the model's outputs.

    That number is the sum of each real floating output times a fixed random tensor of its shape.
    All values are whole.

    Attributes:
        factors: those random tensors, in the outputs' dtypes; None for an output that has none.
        inputs: gradients of the model's tensor arguments, flattened; None for what is no real
            floating number.
        parameters: gradients of the parameters, under each of their names.
        obstacle: why PyTorch gives no gradients; empty where it does.
    """

    factors: tuple[Tensor | None, ...] = ()
    inputs: tuple[ReferenceValue | None, ...] = ()
    parameters: Mapping[str, ReferenceValue] = field(default_factory=dict)
    obstacle: str = ""


@lru_cache(maxsize=64)  # a model has many tensors of few sizes, in two runs
def sample_indices(size: int, sample: int, seed: int) -> NumpyArray | None:
    """Choose about ``sample`` of ``size`` flat indices, ascending; None where all are few enough.

    One index at random from each of ``sample`` equal stretches, so that no region is left out.
    """
    if size <= sample:
        return None
    jitter = np.random.default_rng(seed).random(sample)
    chosen = ((np.arange(sample) + jitter) * (size / sample)).astype(np.int64)
    chosen = np.minimum(chosen, size - 1)
    return chosen[np.diff(chosen, prepend=-1) > 0]
