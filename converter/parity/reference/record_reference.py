"""Record the reference of a PyTorch model: one run in its own dtype, one in float64.

The float64 run gives the truth that MLX is compared with, the run in the model's own dtype how much
PyTorch itself loses by rounding.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.reference.copies import perturbed
from mlxport.converter.parity.reference.fast_path import fast_path_difference, has_fast_path
from mlxport.converter.parity.reference.moved import distances, farthest, perturbed_runs
from mlxport.converter.parity.reference.recorded_values import (
    RecordedCall,
    RecordedTensor,
    reference_values,
)
from mlxport.converter.parity.reference.recorder import OnCall, Recorder
from mlxport.converter.parity.reference.spill import SpillFile
from mlxport.converter.parity.verdict.reference_data import Reference, ReferenceValue
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.calls import CallArguments, in_order
from mlxport.converter.torch_model.model_state import eval_mode

_logger = logging.getLogger(__name__)


@stage("reference")
def record_reference(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    paths: Sequence[str],
    since: Mapping[str, str] | None = None,
    taken: Mapping[str, Collection[int]] | None = None,
    sample: int = 65536,
    seed: int = 0,
    keep_inputs: bool = False,
    moving: bool = True,
    state: Sequence[str] = (),
    before: Sequence[CallArguments] = (),
) -> Reference:
    """Run a module twice, in its own dtype and in float64, and record its submodules' values.

    Both runs are made in eval mode, without gradients, on copies of the arguments and with the same
    random numbers: module, arguments and random state are what they were in the end. The
    float64 run widens parameters, buffers, floating arguments, what is created on the way and
    casts to a floating dtype (``x.float()``); integers stay. Where the model has attention layers
    whose modules PyTorch bypasses in inference, it is run that way too, to see if that agrees.

    Args:
        module: the model.
        args: its positional arguments: tensors, containers of them, anything else.
        kwargs: its keyword arguments; their tensors count after those of ``args``.
        paths: qualified names of the submodules to record; ``""`` (the model) is left out, as its
            outputs are recorded anyway. A module that bears several names is recorded under the
            first of them asked for.
        since: path -> the module before it that is to be judged with it, as one layer whose input
            is that module's and whose output is its own; the two run one after the other.
        taken: path -> how many tensors its counterpart takes at its calls. A call with another
            number cannot be judged alone, and so is not run alone. Those left out take any.
        sample: keep at most this many values of each call of a submodule; of the model's outputs
            all.
        seed: of the random state and of the choice of samples.
        keep_inputs: record the submodules' inputs too, whole, and run each submodule alone on them
            in float64; this takes memory for all activations and at most one more float64 run per
            level of nesting.
        moving: let the reference say, where asked, how far its values move: in two more runs, a
            few roundings off.
        state: qualified names of the tensors that a call leaves for later ones, recorded too.
        before: the calls of a sequence that come before this one.

    Raises:
        ParityError: a path names no submodule, or the module draws random numbers by an op or in a
            way that cannot be repeated.
    """
    canonical = _first_names(module, paths)
    given = in_order(module, args, kwargs)
    recorder = Recorder(
        module, given, canonical, since or {}, sample, seed, SpillFile(), state=state, before=before
    )
    for path, counts in (taken or {}).items():
        recorder.taken.setdefault(canonical.get(path, path), set()).update(counts)
    with ExitStack() as stack:
        stack.enter_context(eval_mode(module))
        recorder.run_native(with_inputs=keep_inputs)
        recorder.run_float64(stack)
        calls = tuple(recorder.calls())
    outputs = reference_values(recorder.native_outputs, recorder.float64_outputs)
    difference = ""
    if has_fast_path(module):
        difference = fast_path_difference(module, recorder.given, outputs, seed)
    reference = Reference(
        inputs=recorder.inputs,
        outputs=outputs,
        calls=calls,
        aliases=canonical,
        dtype=recorder.dtype,
        reference_dtype=recorder.dtype if recorder.fallback else "float64",
        fallback=recorder.fallback,
        fast_path=difference,
        seed=seed,
        sample=sample,
        draws=tuple(recorder.draws.recorded),
        signature=recorder.signature,
        state=recorder.state_values(),
        call=len(before) + 1,
        versions={
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )
    if not moving:
        return reference
    return replace(reference, with_moved=partial(_with_moved, module, recorder.given, before))


@dataclass(frozen=True)
class NativeRun:
    """What one more run of a model gives, in its own dtype.

    Attributes:
        outputs: the model's.
        state: what it leaves for later calls.
    """

    outputs: Sequence[RecordedTensor]
    state: Sequence[RecordedTensor]


def record_native(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    reference: Reference,
    on_call: OnCall,
    before: Sequence[CallArguments] = (),
) -> NativeRun:
    """Run a model once more, in its own dtype only, and record what its reference contains.

    Args:
        module: the model, or one whose parameters are slightly others.
        args: its positional arguments.
        kwargs: its keyword arguments.
        reference: of the model; says which submodules to record, the seed and the samples.
        on_call: is given each call of these submodules.
        before: the calls that come before.
    """
    paths = dict.fromkeys(reference.aliases.values())
    canonical = {path: path for path in paths}
    given = in_order(module, args, kwargs)
    recorder = Recorder(
        module,
        given,
        canonical,
        {},
        reference.sample,
        reference.seed,
        state=[*reference.state],
        before=before,
    )
    with eval_mode(module):
        recorder.run_native(with_inputs=False, on_call=on_call)
    return NativeRun(recorder.native_outputs, recorder.native_state)


@stage("reference, moved")
def _with_moved(
    module: torch.nn.Module,
    given: CallArguments,
    before: Sequence[CallArguments],
    reference: Reference,
) -> Reference:
    """Return the reference with how far each of its values moves."""
    outputs, values = [0.0] * len(reference.outputs), list(reference.state.values())
    state = [0.0] * len(values)
    calls = {(call.path, call.number): call for call in reference.calls}
    farthest_of = {key: [0.0] * len(call.outputs) for key, call in calls.items()}
    of_calls = [value for call in reference.calls for value in call.outputs]
    for number in range(perturbed_runs([*reference.outputs, *of_calls, *values])):
        moves: dict[tuple[str, int], list[float]] = {}

        def measure(found: RecordedCall, moves: dict[Any, Any] = moves) -> None:
            if call := calls.get((found.path, found.number)):
                moves[call.path, call.number] = distances(call.outputs, found.outputs)
                if call.release is not None:
                    call.release()

        try:
            with perturbed(module, given, number) as (args, kwargs):
                native = record_native(module, args, kwargs, reference, measure, before)
        except Exception:  # the model's code, whatever it raises of other values
            _logger.debug("the model does not run a few roundings off", exc_info=True)
            break
        outputs = farthest(outputs, distances(reference.outputs, native.outputs))
        state = farthest(state, distances(values, native.state))
        for key, found in moves.items():
            farthest_of[key] = farthest(farthest_of[key], found)
    return replace(
        reference,
        with_moved=None,
        state=dict(zip(reference.state, map(_moved, values, state), strict=True)),
        outputs=tuple(map(_moved, reference.outputs, outputs)),
        calls=tuple(
            replace(call, outputs=tuple(map(_moved, call.outputs, farthest_of[key])))
            for key, call in calls.items()
        ),
    )


def _moved(value: ReferenceValue, moved: float) -> ReferenceValue:
    return replace(value, moved=moved)


def _first_names(module: torch.nn.Module, paths: Sequence[str]) -> dict[str, str]:
    """Map every path asked for to the first that names the same module."""
    names: dict[int, str] = {}
    canonical, unknown = {}, []
    for path in dict.fromkeys(path for path in paths if path):
        try:
            found = module.get_submodule(path)
        except AttributeError:
            unknown.append(path)
            continue
        canonical[path] = names.setdefault(id(found), path)
    if unknown:
        raise ParityError.listing(
            f"{type(module).__name__} has no such submodules:",
            unknown,
            "Is this the model the conversion was made from?",
        )
    return canonical
