"""Run a PyTorch model and record what it computes: in its own dtype and in float64."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mlxport.converter.parity.reference.kept_values import Kept, joined
from mlxport.converter.parity.reference.recorder import Recorder
from mlxport.converter.parity.reference.torch_calls import first_names
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.calls import in_order


@stage("reference")
def record_reference(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    paths: Sequence[str],
    since: Mapping[str, str] | None = None,
    sample: int = 65536,
    seed: int = 0,
    keep_inputs: bool = False,
) -> Reference:
    """Run a module twice, in its own dtype and in float64, and record its submodules' values.

    Both runs are made on copies, in eval mode, without gradients, on copies of the arguments and
    with the same random numbers: module, arguments and random state are left as they were. The
    float64 run widens parameters, buffers, floating arguments, what is created on the way and
    casts to a floating dtype (``x.float()``); integers stay.

    Args:
        module: the model.
        args: its positional arguments: tensors, containers of them, anything else.
        kwargs: its keyword arguments; their tensors count after those of ``args``.
        paths: qualified names of the submodules to record; ``""`` (the model) is left out, as its
            outputs are recorded anyway. A module that bears several names is recorded under the
            first of them asked for.
        since: path -> the module before it that is to be judged with it, as one layer whose input
            is that module's and whose output is its own; the two run one after the other.
        sample: keep at most this many values of each call of a submodule; of the model's outputs
            all.
        seed: of the random state and of the choice of samples.
        keep_inputs: keep the submodules' inputs too, whole, and judge each alone; this takes
            memory for all activations and at most one more float64 run per level of nesting.

    Raises:
        ParityError: a path names no submodule, the module cannot be copied, or it draws random
            numbers by an op or in a way that cannot be repeated.
    """
    canonical = first_names(module, paths)
    since = since or {}
    recorder = Recorder(module, in_order(module, args, kwargs), canonical, since, sample, seed)
    recorder.run_own(keep_inputs)
    recorder.run_exact()
    return Reference(
        inputs=recorder.inputs,
        outputs=joined(recorder.own_outputs, recorder.exact_outputs),
        calls=tuple(recorder.calls()),
        aliases=canonical,
        dtype=recorder.dtype,
        reference_dtype=recorder.dtype if recorder.fallback else "float64",
        fallback=recorder.fallback,
        seed=seed,
        sample=sample,
        draws=tuple(recorder.draws.made),
        signature=recorder.signature,
        versions={
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )


def record_own(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], reference: Reference
) -> tuple[list[Kept], dict[tuple[str, int], list[Kept]]]:
    """Run a module once more, in its own dtype alone, and return what a reference holds of it.

    Args:
        module: the model, or one whose parameters are slightly others.
        args: its positional arguments.
        kwargs: its keyword arguments.
        reference: what was recorded of the model; gives submodules, seed and samples.

    Returns:
        The model's outputs, and those of its submodules' calls by path and number.
    """
    paths = dict.fromkeys(reference.aliases.values())
    canonical = {path: path for path in paths}
    given = in_order(module, args, kwargs)
    recorder = Recorder(module, given, canonical, {}, reference.sample, reference.seed)
    recorder.run_own(False)
    calls = {(made.path, made.number): made.outputs for made in recorder.own_calls}
    return recorder.own_outputs, calls
