"""The reference MLX is judged by: what PyTorch computed, as plain data.

Values are flat, in PyTorch's axis order. Needs neither torch nor mlx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.tensor import Tensor, TensorSpec

NumpyArray = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ReferenceValue:
    """One tensor that PyTorch computed, whole or sampled.

    Attributes:
        shape: its shape.
        dtype: name of its dtype in the model's own run (``"bfloat16"``).
        reference: flat values from the run in float64 (integers and booleans as they are).
        native: flat values from the run in the model's own dtype, widened to float64; read from a
            file, to float32 at least.
        indices: flat indices of the samples, ascending; None where all values are there.
        reference_dtype: dtype the reference was computed in; where float64 was impossible it is
            ``dtype``, and ``reference`` is ``native``.
        moved: how far ``native`` is from ``reference``, as L2 norm, where inputs and parameters are
            a few roundings off, the farthest of some runs; 0 where that was not tried.
    """

    shape: tuple[int, ...]
    dtype: str
    reference: NumpyArray
    native: NumpyArray
    indices: NumpyArray | None = None
    reference_dtype: str = "float64"
    moved: float = 0.0

    def __repr__(self) -> str:
        sampled = "" if self.indices is None else f", {self.indices.size:,} values"
        return f"<ReferenceValue {self}{sampled}>"

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


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

    def __repr__(self) -> str:
        return f"<Draw {self.kind} {self.dtype} {self.shape}>"


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one module.

    Attributes:
        path: the module's qualified name; of several, the one first asked for.
        number: how many calls of that module came before.
        outputs: tensors of its result, flattened, as they arose in the model.
        inputs: tensors of its arguments, flattened, in the model's own dtype; None if not recorded.
        alone: ``outputs`` again, with the reference computed by this module alone in float64 from
            just these ``inputs``, so that the noise is the module's alone; empty if inputs are not
            recorded.
        draws: which of the model's random draws happened inside it, from the first to before the
            second.
        moved_alone: gives ``moved`` of each of ``alone``, by running the torch module again; None
            where it is not at hand.
        release: gives the memory that reading its values took back to the system; None where they
            are in no file.
    """

    path: str
    number: int
    outputs: tuple[ReferenceValue, ...]
    inputs: tuple[Tensor, ...] | None = None
    alone: tuple[ReferenceValue, ...] = ()
    draws: tuple[int, int] = (0, 0)
    moved_alone: Callable[[], Sequence[float]] | None = None
    release: Callable[[], None] | None = None

    def complete(self) -> Call:
        """Return the call with how far each of ``alone`` moves, and nothing left to ask."""
        if self.moved_alone is None:
            return self
        pairs = zip(self.alone, self.moved_alone(), strict=True)
        alone = tuple(replace(value, moved=moved) for value, moved in pairs)
        return replace(self, alone=alone, moved_alone=None)

    def __repr__(self) -> str:
        return f"<Call {self.number} of {self.path}: {', '.join(map(str, self.outputs))}>"


@dataclass(frozen=True, eq=False)
class Reference:
    """What a torch model computed from some inputs, in its own dtype and in float64.

    Attributes:
        inputs: the model's tensor arguments, flattened.
        outputs: tensors of its result, flattened, whole.
        calls: calls of the recorded modules, in the order in which they returned.
        aliases: qualified name of a recorded module -> the name its ``calls`` have, as one module
            may have several names.
        dtype: the model's own dtype.
        reference_dtype: ``"float64"``, or ``dtype`` where the model cannot run in float64 (single
            values may still have been computed in it; each says so itself).
        fallback: why it cannot; empty where it can.
        seed: of the random numbers drawn during the run, and of the sampling.
        sample: how many values are recorded of one call of a submodule at most; the model's outputs
            are whole.
        versions: package name -> version.
        draws: the random draws of the run, in the order of execution; the same in both dtypes.
        signature: how its arguments and its result are nested; None if not known.
        sizes: name of each dynamic size -> what it was; empty where all are static.
        case: which inputs these are, where not the example (``"impulse inputs"``).
        fast_path: what is other on PyTorch's fast path for attention, which it takes in eval mode
            without gradients; empty where nothing is, or there is none.
        state: qualified name of each tensor that the call left for later ones -> its values.
        call: which of a sequence of calls, the first of which begins anew.
        with_moved: given the reference, gives it again, with how far each of its values moves, by
            running the torch model again; None where it is not at hand, or that is known.
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
    fast_path: str = ""
    state: Mapping[str, ReferenceValue] = field(default_factory=dict)
    call: int = 1
    with_moved: Callable[[Reference], Reference] | None = None

    def complete(self) -> Reference:
        """Return the reference with how far all its values move, whatever becomes of the model."""
        found = self if self.with_moved is None else self.with_moved(self)
        return replace(found, calls=tuple(call.complete() for call in found.calls))

    def __repr__(self) -> str:
        return f"<Reference {self.dtype}, {len(self.calls)} calls, {len(self.outputs)} outputs>"

    def __str__(self) -> str:
        modules = len({call.path for call in self.calls})
        inputs = ", ".join(map(str, map(TensorSpec.of, self.inputs)))
        outputs = ", ".join(map(str, self.outputs))
        lines = [
            f"reference of a {self.dtype} model in {self.reference_dtype}"
            + (f" ({self.fallback})" if self.fallback else ""),
            f"inputs: {inputs}" + (f" ({self.case})" if self.case else ""),
            f"outputs: {outputs}",
            f"{len(self.calls)} calls of {modules} modules, {len(self.draws)} random draws, "
            f"seed {self.seed}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Gradients:
    """What PyTorch's autograd gives for one scalar computed from the model's outputs.

    That scalar is the sum of each real floating output times a fixed random tensor of its shape.
    All values are whole.

    Attributes:
        factors: those random tensors, in the outputs' dtypes; None for an output without one.
        inputs: gradients of the model's tensor arguments, flattened; None for those that are not
            real floating numbers.
        parameters: gradients of the parameters, under each of their names.
        obstacle: why PyTorch gives no gradients; empty where it does.
    """

    factors: tuple[Tensor | None, ...] = ()
    inputs: tuple[ReferenceValue | None, ...] = ()
    parameters: Mapping[str, ReferenceValue] = field(default_factory=dict)
    obstacle: str = ""

    def __repr__(self) -> str:
        found = f" of {len(self.inputs)} inputs, {len(self.parameters)} parameters"
        return f"<Gradients{f': {self.obstacle}' if self.obstacle else found}>"


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
