"""The runs of a PyTorch model that a reference is made of, and what its submodules see in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_map, tree_map_only

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.reference.copies import detached_clones, eval_copy
from mlxport.converter.parity.reference.float64 import as_float64, float64_copy, in_float64
from mlxport.converter.parity.reference.kept_values import (
    Kept,
    bits,
    joined,
    tensors,
    torch_dtype_name,
)
from mlxport.converter.parity.reference.same_tensors import Known, same
from mlxport.converter.parity.reference.torch_calls import Made, OnCall
from mlxport.converter.parity.reference.torch_draws import TorchDraws
from mlxport.converter.parity.verdict.reference_data import Call, sample_indices
from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.calls import CallArguments, bound_arguments, every_module_called
from mlxport.converter.torch_model.read_structure import signature_of

_logger = logging.getLogger(__name__)


class Recorder:
    """The two runs of one model, and what they leave.

    Attributes:
        inputs: the tensors the model was given.
        own_outputs: the model's results in its own dtype.
        exact_outputs: the same in float64; empty where that failed.
        fallback: why it failed, or empty.
        draws: the random numbers the model drew.
        signature: what the model takes and gives.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        given: CallArguments,
        canonical: Mapping[str, str],
        since: Mapping[str, str],
        sample: int,
        seed: int,
    ) -> None:
        self.module, self.given, self.since = module, given, since
        self.paths = list(dict.fromkeys([*since.values(), *canonical.values()]))
        self.sample, self.seed = sample, seed
        self.dtype = _own_dtype(module, given)
        self.inputs = tuple(bits(leaf) for leaf in tensors(given))
        self.draws = TorchDraws()
        self.own_outputs: list[Kept] = []
        self.signature: Signature | None = None
        self.own_calls: list[Made] = []
        self.fallback = ""
        self.exact: torch.nn.Module | None = None
        self.exact_outputs: list[Kept] = []
        self.exact_calls: dict[tuple[str, int], list[Kept]] = {}
        self.begun = 0
        self.frames: list[Known] = []  # of the calls that are going on, the outermost first
        self.fed: list[torch.Tensor] = []  # copies of what the model was given, if kept
        self.alone: dict[tuple[str, int], list[Kept]] = {}
        self.raw: dict[int, tuple[torch.Tensor, Tensor]] = {}

    @stage("own dtype")
    def run_own(self, keep_inputs: bool) -> None:
        """Run in the model's own dtype; the random numbers are drawn in this run."""
        with self.draws.recorded():
            result = self._run(
                eval_copy(self.module), self.given, self.own_calls.append, keep_inputs
            )
        self.signature = signature_of(self.module, self.given, result)
        self.own_outputs = [Kept(leaf) for leaf in tensors(result)]

    @stage("float64")
    def run_exact(self) -> None:
        """Run in float64; where that fails, note why and keep what was computed before."""
        own = {(made.path, made.number): made for made in self.own_calls}

        def on_call(made: Made) -> None:
            key = made.path, made.number
            self.exact_calls[key] = made.outputs
            if key in own and self._same(made, own[key]):
                self.alone[key] = made.outputs

        try:
            # where only the whole fails, its modules may still run alone
            exact = self.exact = float64_copy(self.module)
            with in_float64(), self.draws.replayed():
                result = self._run(exact, tree_map(as_float64, self.given), on_call)
        except ParityError:
            raise
        except Exception as error:  # whatever the model's code raises when its dtype is another
            self.fallback = f"float64 failed: {type(error).__name__}: {error}".splitlines()[0]
            _logger.debug("the model does not run in float64", exc_info=True)
            return
        self.exact_outputs = [Kept(leaf) for leaf in tensors(result)]

    def calls(self) -> Iterator[Call]:
        """Join the values of the two runs, and run in float64 alone what was given its inputs."""
        first: dict[tuple[str, int], CallArguments | None] = {}
        while self.own_calls:
            made = self.own_calls[0]
            path, number, given = made.path, made.number, made.given
            if path in self.since.values():
                first[path, number] = given
                self.own_calls.pop(0)
                continue
            begin = self.since.get(path, path)
            if begin != path:
                given = first.pop((begin, number))
            outputs = joined(made.outputs, self.exact_calls.get((path, number), []))
            call = Call(path, number, outputs, draws=made.draws)
            if given is not None:
                named = bound_arguments(self.module.get_submodule(begin), *given)
                inputs = tuple(self._raw(leaf) for leaf in tensors(named))
                alone = joined(made.outputs, self._exact_alone(made, given))
                call = replace(call, inputs=inputs, alone=alone)
            self.own_calls.pop(0)
            yield call

    def _run(
        self,
        module: torch.nn.Module,
        given: CallArguments,
        on_call: OnCall,
        keep_inputs: bool = False,
    ) -> Any:
        args, kwargs = detached_clones(given)
        if keep_inputs:
            self.fed = tensors(detached_clones(given))
        known = Known(tensors((args, kwargs)), self.fed) if self.fed else None
        self.frames = [known] if known and keep_inputs else []
        with ExitStack() as stack:
            stack.enter_context(self._random_state())
            stack.enter_context(every_module_called())
            stack.enter_context(torch.no_grad())
            for path in self.paths:
                stack.enter_context(self._hooked(module, path, on_call, keep_inputs, known))
            torch.manual_seed(self.seed)
            return module(*args, **kwargs)

    @contextmanager
    def _hooked(
        self,
        module: torch.nn.Module,
        path: str,
        on_call: OnCall,
        keep_inputs: bool = False,
        known: Known | None = None,
    ) -> Iterator[None]:
        """Report every call of a submodule, with its arguments as they were before it ran."""
        submodule = module.get_submodule(path)
        # a stack: a module may call itself
        waiting: list[tuple[CallArguments | None, tuple[torch.Tensor | None, ...], int, int]] = []
        number = 0

        def before(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
            taken = tensors((args, kwargs))
            labels = tuple(known.label(tensor) for tensor in taken) if known else ()
            given = self._given(args, kwargs) if keep_inputs else None
            waiting.append((given, labels, self.draws.position, self.begun))
            self.begun += 1

        def after(_: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            nonlocal number
            given, labels, start, begun = waiting.pop()
            if keep_inputs:
                self.frames.pop()
            draws, span = (start, self.draws.position), (begun, self.begun)
            on_call(Made(path, number, given, draws, self._kept(result), span, labels))
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

    def _given(self, args: Any, kwargs: Any) -> CallArguments:
        """Return a copy of a call's arguments, and open its frame."""

        def copy(tensor: torch.Tensor) -> torch.Tensor:
            labels = (frame.label(tensor) for frame in reversed(self.frames))
            known = next((label for label in labels if label is not None), None)
            return tensor.detach().clone() if known is None else known

        given: CallArguments = tree_map_only(torch.Tensor, copy, (args, kwargs))
        self.frames.append(Known(tensors((args, kwargs)), tensors(given)))
        return given

    def _raw(self, tensor: torch.Tensor) -> Tensor:
        """Return a copy that was kept as raw storage, the same for each of its uses."""
        _, raw = self.raw.setdefault(id(tensor), (tensor, tensor_from_torch(tensor)))
        return raw

    @stage("float64, alone")
    def _exact_alone(self, made: Made, given: CallArguments) -> list[Kept]:
        """Return what one module gives in float64 for what it is fed in its own dtype.

        Where a call around it was fed the same, that one runs, and tells of all within it.
        """
        key = made.path, made.number
        if key not in self.alone and made.path not in self.since:
            around = [one for one in self.own_calls if self._shows(one, made)]
            outer = min(around, key=lambda one: one.span, default=made)
            if outer is not made and (outer.path, outer.number) not in self.alone:
                self.alone[outer.path, outer.number] = self._run_alone(outer, outer.given)
        if key not in self.alone:
            self.alone[key] = self._run_alone(made, given)
        return self.alone.pop(key)

    def _shows(self, outer: Made, made: Made) -> bool:
        """Tell whether a call of a module in float64 alone is one of the calls within it, too."""
        if not made.within(outer) or outer.path in self.since:
            return False
        held = {id(tensor) for tensor in tensors(outer.given)}
        given = tensors(made.given)
        return bool(given) and held.issuperset(map(id, given))

    def _run_alone(self, made: Made, given: CallArguments | None) -> list[Kept]:
        """Run one module, with the one judged with it, in float64; note what it shows within."""
        if self.exact is None or given is None:
            return []
        args, kwargs = tree_map(as_float64, given)
        known = Known(tensors((args, kwargs)), tensors(given))
        inside: dict[str, list[Made]] = {}
        for call in sorted(self.own_calls, key=lambda one: one.span):
            if call.within(made) and call.path not in self.since:
                inside.setdefault(call.path, []).append(call)

        def on_call(found: Made) -> None:
            calls = inside[found.path]
            if found.number < len(calls) and self._same(found, calls[found.number]):
                self.alone[found.path, calls[found.number].number] = found.outputs

        with ExitStack() as stack:
            stack.enter_context(self._random_state())
            stack.enter_context(in_float64())
            for path in inside:
                hooked = self._hooked(self.exact, path, on_call, known=known)
                stack.enter_context(hooked)
            try:
                with self.draws.replayed(*made.draws):
                    if first := self.since.get(made.path):
                        args, kwargs = (self.exact.get_submodule(first)(*args, **kwargs),), {}
                    result = self.exact.get_submodule(made.path)(*args, **kwargs)
            except Exception:  # state left by the run before; its own value stands in
                _logger.debug("%s does not run alone in float64", made.path, exc_info=True)
                return []
        return self._kept(result)

    def _same(self, found: Made, own: Made) -> bool:
        """Tell whether a call in float64 was fed just what the one in the own dtype was."""
        return found.path not in self.since and same(found.labels, tensors(own.given))

    def _kept(self, result: Any) -> list[Kept]:
        leaves = tensors(result)
        # what small tensors of one result leave of the sample, the large ones share
        share, left = self.sample, len(leaves)
        sizes = {}
        for place, leaf in sorted(enumerate(leaves), key=lambda one: one[1].numel()):
            sizes[place] = min(leaf.numel(), max(share // left, 1))
            share, left = share - sizes[place], left - 1
        return [
            Kept(leaf, sample_indices(leaf.numel(), sizes[place], self.seed))
            for place, leaf in enumerate(leaves)
        ]

    def _random_state(self) -> Any:
        devices = {t.device for t in [*self.module.parameters(), *self.module.buffers()]}
        return torch.random.fork_rng([device for device in devices if device.type == "cuda"])


def _own_dtype(module: torch.nn.Module, given: CallArguments) -> str:
    for tensor in [*module.parameters(), *module.buffers(), *tensors(given)]:
        if tensor.is_floating_point() or tensor.is_complex():
            return torch_dtype_name(tensor.dtype)
    return torch_dtype_name(torch.get_default_dtype())
