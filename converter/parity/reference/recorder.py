"""Run a torch model in its own dtype and in float64, and record what its submodules compute.

Submodules are also run *alone* in float64, on the inputs they had in the model's own dtype: what
they lose then is their own rounding, and not what earlier layers lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch.utils._pytree import tree_map, tree_map_only

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.reference.copies import detached_clones
from mlxport.converter.parity.reference.float64 import as_float64, float64_values, in_float64
from mlxport.converter.parity.reference.moved import moved_alone
from mlxport.converter.parity.reference.recorded_values import (
    RecordedCall,
    RecordedTensor,
    raw_copy,
    reference_values,
    tensors,
    torch_dtype_name,
)
from mlxport.converter.parity.reference.spill import SpillFile
from mlxport.converter.parity.reference.torch_draws import TorchDraws
from mlxport.converter.parity.reference.unchanged_tensors import UnchangedTensors, same_tensors
from mlxport.converter.parity.verdict.reference_data import Call, ReferenceValue, sample_indices
from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.calls import CallArguments, bound_arguments, every_module_called
from mlxport.converter.torch_model.model_state import trial_run
from mlxport.converter.torch_model.read_structure import signature_of

_logger = logging.getLogger(__name__)

OnCall = Callable[[RecordedCall], None]


class Recorder:
    """The two runs of one model, and what was recorded in them.

    Attributes:
        inputs: the model's input tensors.
        native_outputs: the model's results in its own dtype.
        float64_outputs: the same in float64; empty where that run failed.
        fallback: why it failed, or empty.
        draws: the random numbers the model drew.
        native_state: what the run in the model's own dtype left for later calls.
        float64_state: the same in float64.
        signature: how the model's arguments and results are nested.
        taken: path -> with how many tensors a call of it can be judged alone; any if left out.
        spill: keeps what is recorded of the calls.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        given: CallArguments,
        canonical: Mapping[str, str],
        since: Mapping[str, str],
        sample: int,
        seed: int,
        spill: SpillFile | None = None,
        state: Sequence[str] = (),
        before: Sequence[CallArguments] = (),
    ) -> None:
        self.module, self.given, self.since = module, given, since
        self.state, self.before = state, before
        self.paths = list(dict.fromkeys([*since.values(), *canonical.values()]))
        self.sample, self.seed = sample, seed
        self.dtype = _model_dtype(module, given)
        self.inputs = tuple(raw_copy(leaf) for leaf in tensors(given))
        self.draws = TorchDraws()
        self.native_outputs: list[RecordedTensor] = []
        self.signature: Signature | None = None
        self.taken: dict[str, set[int]] = {}
        self.spill = spill
        self.native_state: list[RecordedTensor] = []
        self.float64_state: list[RecordedTensor] = []
        self.native_calls: list[RecordedCall] = []
        self.fallback = ""
        self.has_float64 = False
        self.float64_outputs: list[RecordedTensor] = []
        self.float64_calls: dict[tuple[str, int], list[RecordedTensor]] = {}
        self.begun = 0  # calls that have begun in the present run
        self.frames: list[UnchangedTensors] = []  # of the calls under way, the outermost first
        self.input_copies: list[torch.Tensor] = []  # of the model's inputs, if inputs are recorded
        self.alone: dict[tuple[str, int], list[RecordedTensor]] = {}
        self.raw: dict[int, tuple[torch.Tensor, Tensor]] = {}

    @stage("own dtype")
    def run_native(self, with_inputs: bool, on_call: OnCall | None = None) -> None:
        """Run in the model's own dtype; the random numbers are drawn in this run.

        Args:
            with_inputs: record the arguments of the calls, too.
            on_call: is given each call, which is not kept then.
        """
        with trial_run(self.module):
            self._run_before(self.before)
            with self.draws.recording():
                result = self._run(self.given, on_call or self.native_calls.append, with_inputs)
            self.native_state = self._state_now()
            self.native_outputs = [RecordedTensor(leaf) for leaf in tensors(result)]
            self.signature = signature_of(self.module, self.given, result)

    @stage("float64")
    def run_float64(self, stack: ExitStack) -> None:
        """Run in float64; where that fails, note why and keep what was computed before.

        Args:
            stack: until it is closed the model stays in float64, so that its modules run alone.
        """
        native = {(call.path, call.number): call for call in self.native_calls}

        def on_call(call: RecordedCall) -> None:
            key = call.path, call.number
            self.float64_calls[key] = call.outputs
            if key in native and self._same_inputs(call, native[key]):
                self.alone[key] = call.outputs

        try:
            stack.enter_context(float64_values(self.module))
            self.has_float64 = True  # where only the whole fails, modules may still run alone
            with in_float64():
                self._run_before(tree_map(as_float64, self.before))
                with self.draws.replayed():
                    result = self._run(tree_map(as_float64, self.given), on_call)
                self.float64_state = self._state_now()
        except ParityError:
            raise
        except Exception as error:  # whatever the model's code raises when its dtype is another
            _logger.debug("the model does not run in float64", exc_info=True)
            self.fallback = f"float64 failed: {type(error).__name__}: {error}".splitlines()[0]
            return
        self.float64_outputs = [RecordedTensor(leaf) for leaf in tensors(result)]

    def state_values(self) -> dict[str, ReferenceValue]:
        """Join what both runs left for later calls, by qualified name."""
        values = reference_values(self.native_state, self.float64_state)
        return dict(zip(self.state, values, strict=True))

    def calls(self) -> Iterator[Call]:
        """Join the values of the two runs; run alone, in float64, the calls whose inputs are known.

        Recorded calls are dropped one by one, so that their values need not stay in memory twice.
        """
        first: dict[tuple[str, int], CallArguments | None] = {}
        while self.native_calls:
            native = self.native_calls[0]
            path, number, given = native.path, native.number, native.given
            if path in self.since.values():
                first[path, number] = given
                self.native_calls.pop(0)
                continue
            begin = self.since.get(path, path)
            if begin != path:
                given = first.pop((begin, number))
            call = self._joined(native, begin, given)
            self.native_calls.pop(0)
            if self.spill is not None:
                self.spill.release()
            yield call

    def _joined(self, native: RecordedCall, begin: str, given: CallArguments | None) -> Call:
        """Join what is recorded of one call; ``begin`` is the module that had the arguments."""
        path, number = native.path, native.number
        outputs = reference_values(native.outputs, self.float64_calls.get((path, number), []))
        release = self.spill.release if self.spill is not None else None
        call = Call(path, number, outputs, draws=native.draws, release=release)
        if given is None:
            return call
        inputs = self._arguments(begin, given)
        call = replace(call, inputs=tuple(map(self._raw, inputs)))
        if not self._is_judged_alone(path, inputs):
            return call
        alone = reference_values(native.outputs, self._float64_alone(native, given))
        call = replace(call, alone=alone)
        # drawn numbers would be others, and two modules in a row no single one
        if begin == path and native.draws[0] == native.draws[1]:
            submodule = self.module.get_submodule(path)
            call = replace(call, moved_alone=partial(moved_alone, submodule, given, alone))
        return call

    def _arguments(self, path: str, given: CallArguments) -> list[torch.Tensor]:
        """Return the tensors among a call's arguments, in the order of ``forward``."""
        return tensors(bound_arguments(self.module.get_submodule(path), *given))

    def _is_judged_alone(self, path: str, inputs: Sequence[torch.Tensor]) -> bool:
        return path not in self.taken or len(inputs) in self.taken[path]

    def _run_before(self, calls: Sequence[CallArguments]) -> None:
        """Make the calls that come before the one to record."""
        for given in calls:
            args, kwargs = detached_clones(given)
            with self._random_state(), every_module_called(), torch.no_grad():
                torch.manual_seed(self.seed)
                self.module(*args, **kwargs)

    def _state_now(self) -> list[RecordedTensor]:
        return [RecordedTensor(attrgetter(name)(self.module)) for name in self.state]

    def _keeps_state(self, path: str) -> bool:
        return any(name.startswith(f"{path}.") for name in self.state)

    def _run(
        self,
        given: CallArguments,
        on_call: OnCall,
        with_inputs: bool = False,
    ) -> Any:
        args, kwargs = detached_clones(given)
        if with_inputs:
            self.input_copies = tensors(detached_clones(given))
        copies = self.input_copies
        known = UnchangedTensors(tensors((args, kwargs)), copies) if copies else None
        self.frames = [known] if known and with_inputs else []
        with ExitStack() as stack:
            stack.enter_context(self._random_state())
            stack.enter_context(every_module_called())
            stack.enter_context(torch.no_grad())
            for path in self.paths:
                stack.enter_context(self._hooked(path, on_call, with_inputs, known))
            torch.manual_seed(self.seed)
            return self.module(*args, **kwargs)

    @contextmanager
    def _hooked(
        self,
        path: str,
        on_call: OnCall,
        with_inputs: bool = False,
        known: UnchangedTensors | None = None,
    ) -> Iterator[None]:
        """Report every call of a submodule, with its arguments as they were before it ran."""
        submodule = self.module.get_submodule(path)
        with_inputs = with_inputs and not self._keeps_state(path)  # alone, it would need the state
        # a stack: a module may call itself
        waiting: list[tuple[CallArguments | None, tuple[torch.Tensor | None, ...], int, int]] = []
        number = 0

        def before(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
            leaves = tensors((args, kwargs))
            labels = tuple(known.label(tensor) for tensor in leaves) if known else ()
            given = self._copied_arguments(args, kwargs) if with_inputs else None
            waiting.append((given, labels, self.draws.position, self.begun))
            self.begun += 1

        def after(_: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            nonlocal number
            given, labels, start, begun = waiting.pop()
            if with_inputs:
                self.frames.pop()
            draws, span = (start, self.draws.position), (begun, self.begun)
            outputs = self._sampled(result)
            on_call(RecordedCall(path, number, given, draws, outputs, span, labels))
            number += 1

        hooks = [
            submodule.register_forward_pre_hook(before, with_kwargs=True),
            submodule.register_forward_hook(after, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _copied_arguments(self, args: Any, kwargs: Any) -> CallArguments:
        """Return a copy of a call's arguments, and open its frame."""

        def copy(tensor: torch.Tensor) -> torch.Tensor:
            labels = (frame.label(tensor) for frame in reversed(self.frames))
            known = next((label for label in labels if label is not None), None)
            if known is not None:
                return known
            cloned = tensor.detach().clone()
            return cloned if self.spill is None else self.spill.tensor(cloned)

        given: CallArguments = tree_map_only(torch.Tensor, copy, (args, kwargs))
        self.frames.append(UnchangedTensors(tensors((args, kwargs)), tensors(given)))
        return given

    def _raw(self, tensor: torch.Tensor) -> Tensor:
        """Return a recorded input as raw storage, the same object for each of its uses."""
        _, raw = self.raw.setdefault(id(tensor), (tensor, tensor_from_torch(tensor)))
        return raw

    @stage("float64, alone")
    def _float64_alone(self, call: RecordedCall, given: CallArguments) -> list[RecordedTensor]:
        """Return what one module computes in float64 from its inputs in the model's own dtype.

        Where a call around it had the same inputs, that one is run, which gives the results of all
        such calls inside it at once.
        """
        key = call.path, call.number
        if key not in self.alone and call.path not in self.since:
            around = [outer for outer in self.native_calls if self._passes_inputs_to(outer, call)]
            outer = min(around, key=lambda one: one.span, default=call)
            if outer is not call and (outer.path, outer.number) not in self.alone:
                self.alone[outer.path, outer.number] = self._run_alone(outer, outer.given)
        if key not in self.alone:
            self.alone[key] = self._run_alone(call, given)
        return self.alone.pop(key)

    def _passes_inputs_to(self, outer: RecordedCall, call: RecordedCall) -> bool:
        """Tell whether a call is inside another one, run alone too, and has only inputs of that."""
        if not call.within(outer) or outer.path in self.since or outer.given is None:
            return False
        passed = self._arguments(outer.path, outer.given)
        given = {id(tensor) for tensor in tensors(call.given)}
        within = bool(given) and given.issubset(map(id, passed))
        return within and self._is_judged_alone(outer.path, passed)

    def _run_alone(self, call: RecordedCall, given: CallArguments | None) -> list[RecordedTensor]:
        """Run one module in float64; record the calls inside it that have the same inputs, too.

        A module that is judged together with the one before it (``since``) runs after that one.
        """
        if not self.has_float64 or given is None:
            return []
        args, kwargs = tree_map(as_float64, given)
        known = UnchangedTensors(tensors((args, kwargs)), tensors(given))
        inside: dict[str, list[RecordedCall]] = {}
        for inner in sorted(self.native_calls, key=lambda one: one.span):
            if inner.within(call) and inner.path not in self.since:
                inside.setdefault(inner.path, []).append(inner)

        def on_call(found: RecordedCall) -> None:
            calls = inside[found.path]
            if found.number < len(calls) and self._same_inputs(found, calls[found.number]):
                self.alone[found.path, calls[found.number].number] = found.outputs

        with ExitStack() as stack:
            stack.enter_context(self._random_state())
            stack.enter_context(every_module_called())
            stack.enter_context(in_float64())
            for path in inside:
                stack.enter_context(self._hooked(path, on_call, known=known))
            try:
                with self.draws.replayed(*call.draws):
                    if first := self.since.get(call.path):
                        args = (self.module.get_submodule(first)(*args, **kwargs),)
                        kwargs = {}
                    result = self.module.get_submodule(call.path)(*args, **kwargs)
            except Exception:  # state left by the run before; the native value takes its place
                _logger.debug("%s does not run alone in float64", call.path, exc_info=True)
                return []
        return self._sampled(result)

    def _same_inputs(self, float64: RecordedCall, native: RecordedCall) -> bool:
        """Tell whether a call in float64 had just the inputs of the one in the model's own dtype.

        It has them where they are the model's inputs, passed on unchanged.
        """
        given = tensors(native.given)
        return float64.path not in self.since and same_tensors(float64.labels, given)

    def _sampled(self, result: Any) -> list[RecordedTensor]:
        leaves = tensors(result)
        # what small tensors of one result leave of the sample, the large ones share
        share, left = self.sample, len(leaves)
        sizes = {}
        for place, leaf in sorted(enumerate(leaves), key=lambda one: one[1].numel()):
            sizes[place] = min(leaf.numel(), max(share // left, 1))
            share, left = share - sizes[place], left - 1
        found = [
            RecordedTensor(leaf, sample_indices(leaf.numel(), sizes[place], self.seed))
            for place, leaf in enumerate(leaves)
        ]
        for recorded in found:
            if self.spill is not None:
                recorded.values = self.spill.array(recorded.values)
        return found

    def _random_state(self) -> Any:
        devices = {t.device for t in [*self.module.parameters(), *self.module.buffers()]}
        return torch.random.fork_rng([device for device in devices if device.type == "cuda"])


def _model_dtype(module: torch.nn.Module, given: CallArguments) -> str:
    for tensor in [*module.parameters(), *module.buffers(), *tensors(given)]:
        if tensor.is_floating_point() or tensor.is_complex():
            return torch_dtype_name(tensor.dtype)
    return torch_dtype_name(torch.get_default_dtype())
