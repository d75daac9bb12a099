"""Run a PyTorch model and record what it computes: in its own dtype and in float64."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.copies import cloned, copied
from mlxport.converter.parity.float64 import in_float64, wide, widened
from mlxport.converter.parity.kept import Kept, bits, dtype_name, joined, tensors
from mlxport.converter.parity.recording import Call, Reference, sample_indices
from mlxport.converter.parity.torch_draws import TorchDraws
from mlxport.converter.structure import Signature
from mlxport.converter.timings import stage
from mlxport.converter.torch_call import bound_arguments, every_module_called, in_order
from mlxport.converter.torch_structure import signature_of

# positional and keyword arguments of a call
Given = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class _Made:
    """One call of a submodule: the values kept of its result, and what it was given if kept."""

    path: str
    number: int
    given: Given | None
    draws: tuple[int, int]
    outputs: list[Kept]


OnCall = Callable[[_Made], None]


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
        sample: keep at most about this many values of each tensor but the model's outputs.
        seed: of the random state and of the choice of samples.
        keep_inputs: keep the submodules' inputs too, whole, and judge each alone; this takes
            memory for all activations and one more float64 run per level of nesting.

    Raises:
        ParityError: a path names no submodule, the module cannot be copied, or it draws random
            numbers by an op or in a way that cannot be repeated.
    """
    canonical = _canonical(module, paths)
    since = since or {}
    recorder = _Recorder(module, in_order(module, args, kwargs), canonical, since, sample, seed)
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
    recorder = _Recorder(module, given, canonical, {}, reference.sample, reference.seed)
    recorder.run_own(False)
    calls = {(made.path, made.number): made.outputs for made in recorder.own_calls}
    return recorder.own_outputs, calls


def _canonical(module: torch.nn.Module, paths: Sequence[str]) -> dict[str, str]:
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


class _Recorder:
    """The two runs of one model, and what they leave."""

    def __init__(
        self,
        module: torch.nn.Module,
        given: Given,
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
        self.own_calls: list[_Made] = []
        self.fallback = ""
        self.exact: torch.nn.Module | None = None
        self.exact_outputs: list[Kept] = []
        self.exact_calls: dict[tuple[str, int], list[Kept]] = {}

    @stage("own dtype")
    def run_own(self, keep_inputs: bool) -> None:
        """Run in the model's own dtype; the random numbers are drawn in this run."""
        with self.draws.recorded():
            result = self._run(copied(self.module), self.given, self.own_calls.append, keep_inputs)
        self.signature = signature_of(self.module, self.given, result)
        self.own_outputs = [Kept(leaf) for leaf in tensors(result)]

    @stage("float64")
    def run_exact(self) -> None:
        """Run in float64; where that fails, note why and keep what was computed before."""

        def on_call(made: _Made) -> None:
            self.exact_calls[made.path, made.number] = made.outputs

        try:
            # where only the whole fails, its modules may still run alone
            exact = self.exact = widened(self.module)
            with in_float64(), self.draws.replayed():
                result = self._run(exact, tree_map(wide, self.given), on_call)
        except ParityError:
            raise
        except Exception as error:  # whatever the model's code raises when its dtype is another
            self.fallback = f"float64 failed: {type(error).__name__}: {error}".splitlines()[0]
            return
        self.exact_outputs = [Kept(leaf) for leaf in tensors(result)]

    def calls(self) -> Iterator[Call]:
        """Join the values of the two runs, and run in float64 alone what was given its inputs."""
        first: dict[tuple[str, int], Given | None] = {}
        while self.own_calls:
            made = self.own_calls.pop(0)
            path, number, given = made.path, made.number, made.given
            if path in self.since.values():
                first[path, number] = given
                continue
            begin = self.since.get(path, path)
            if begin != path:
                given = first.pop((begin, number))
            outputs = joined(made.outputs, self.exact_calls.get((path, number), []))
            call = Call(path, number, outputs, draws=made.draws)
            if given is not None:
                named = bound_arguments(self.module.get_submodule(begin), *given)
                inputs = tuple(bits(leaf) for leaf in tensors(named))
                alone = joined(made.outputs, self._exact_alone(made, given))
                call = replace(call, inputs=inputs, alone=alone)
            yield call

    def _run(
        self, module: torch.nn.Module, given: Given, on_call: OnCall, keep_inputs: bool = False
    ) -> Any:
        args, kwargs = cloned(given)
        with ExitStack() as stack:
            stack.enter_context(self._random_state())
            stack.enter_context(every_module_called())
            stack.enter_context(torch.no_grad())
            for path in self.paths:
                stack.enter_context(self._hooked(module, path, on_call, keep_inputs))
            torch.manual_seed(self.seed)
            return module(*args, **kwargs)

    @contextmanager
    def _hooked(
        self, module: torch.nn.Module, path: str, on_call: OnCall, keep_inputs: bool
    ) -> Iterator[None]:
        """Report every call of a submodule, with its arguments as they were before it ran."""
        submodule = module.get_submodule(path)
        waiting: list[tuple[Given | None, int]] = []  # a stack: a module may call itself
        number = 0

        def before(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
            given = cloned((args, kwargs)) if keep_inputs else None
            waiting.append((given, self.draws.position))

        def after(_: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            nonlocal number
            given, start = waiting.pop()
            draws = (start, self.draws.position)
            on_call(_Made(path, number, given, draws, self._kept(result)))
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

    @stage("float64, alone")
    def _exact_alone(self, made: _Made, given: Given) -> list[Kept]:
        """Run one module, with the one judged with it, in float64 on what it is fed in its own."""
        if self.exact is None:
            return []
        args, kwargs = tree_map(wide, given)
        with self._random_state(), in_float64():
            try:
                with self.draws.replayed(*made.draws):
                    if first := self.since.get(made.path):
                        args, kwargs = (self.exact.get_submodule(first)(*args, **kwargs),), {}
                    result = self.exact.get_submodule(made.path)(*args, **kwargs)
            except Exception:  # state left by the run before; its own value stands in
                return []
        return self._kept(result)

    def _kept(self, result: Any) -> list[Kept]:
        return [
            Kept(leaf, sample_indices(leaf.numel(), self.sample, self.seed))
            for leaf in tensors(result)
        ]

    def _random_state(self) -> Any:
        devices = {t.device for t in [*self.module.parameters(), *self.module.buffers()]}
        return torch.random.fork_rng([device for device in devices if device.type == "cuda"])


def _own_dtype(module: torch.nn.Module, given: Given) -> str:
    for tensor in [*module.parameters(), *module.buffers(), *tensors(given)]:
        if tensor.is_floating_point() or tensor.is_complex():
            return dtype_name(tensor.dtype)
    return dtype_name(torch.get_default_dtype())
