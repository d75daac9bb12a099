"""Run a PyTorch model and record what it computes: in its own dtype and in float64."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.float64 import in_float64, wide, widen
from mlxport.converter.parity.recording import Array, Call, Reference, Value, sample_indices
from mlxport.converter.tensor import Tensor
from mlxport.converter.torch_call import bound_arguments, every_module_called
from mlxport.converter.torch_tensor import tensor_from_torch

# positional and keyword arguments of a call
Given = tuple[tuple[Any, ...], dict[str, Any]]
# told of every call: path, how many came before, what it was given (None if not kept), its result
OnCall = Callable[[str, int, Given | None, Any], None]


def record_reference(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    paths: Sequence[str],
    sample: int = 65536,
    seed: int = 0,
    keep_inputs: bool = False,
) -> Reference:
    """Run a module twice, in its own dtype and in float64, and record its submodules' values.

    Both runs are made on copies, in eval mode, without gradients, on copies of the arguments and
    from the same random state: module, arguments and random state are left as they were. The
    float64 run widens parameters, buffers, floating arguments, what is created on the way and
    casts to a floating dtype (``x.float()``); integers stay.

    Args:
        module: the model.
        args: its positional arguments: tensors, containers of them, anything else.
        kwargs: its keyword arguments; their tensors count after those of ``args``.
        paths: qualified names of the submodules to record; ``""`` (the model) is left out, as its
            outputs are recorded anyway. A module that bears several names is recorded under the
            first of them asked for.
        sample: keep at most about this many values of each tensor but the model's outputs.
        seed: of the random state and of the choice of samples.
        keep_inputs: keep the submodules' inputs too, whole, and judge each alone; this takes
            memory for all activations and one more float64 run per level of nesting.

    Raises:
        ParityError: a path names no submodule, or the module cannot be copied.
    """
    canonical = _canonical(module, paths)
    recorder = _Recorder(module, (tuple(args), dict(kwargs or {})), canonical, sample, seed)
    recorder.run_exact()
    recorder.run_own(keep_inputs)
    return Reference(
        inputs=recorder.inputs,
        outputs=recorder.outputs,
        calls=tuple(recorder.calls),
        aliases=canonical,
        dtype=recorder.dtype,
        reference_dtype=recorder.dtype if recorder.fallback else "float64",
        fallback=recorder.fallback,
        seed=seed,
        sample=sample,
        versions={
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )


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
        sample: int,
        seed: int,
    ) -> None:
        self.module, self.given = module, given
        self.paths = list(dict.fromkeys(canonical.values()))
        self.sample, self.seed = sample, seed
        self.dtype = _own_dtype(module, given)
        self.inputs = tuple(_bits(leaf) for leaf in _tensors(given))
        self.outputs: tuple[Value, ...] = ()
        self.calls: list[Call] = []
        self.fallback = ""
        self.exact: torch.nn.Module | None = None
        self.exact_outputs: list[_Kept] = []
        self.exact_calls: dict[tuple[str, int], list[_Kept]] = {}

    def run_exact(self) -> None:
        """Run in float64; where that fails, note why and keep what was computed before."""

        def on_call(path: str, number: int, given: Given | None, result: Any) -> None:
            self.exact_calls[path, number] = self._kept(result)

        exact = _copied(self.module)
        try:
            widen(exact)
            self.exact = exact  # where only the whole fails, its modules may still run alone
            with in_float64():
                result = self._run(exact, tree_map(wide, self.given), on_call)
        except Exception as error:  # whatever the model's code raises when its dtype is another
            self.fallback = f"float64 failed: {type(error).__name__}: {error}".splitlines()[0]
            return
        self.exact_outputs = [_Kept(leaf) for leaf in _tensors(result)]

    def run_own(self, keep_inputs: bool) -> None:
        """Run in the model's own dtype and join its values with those of the float64 run."""

        def on_call(path: str, number: int, given: Given | None, result: Any) -> None:
            own = self._kept(result)
            outputs = _joined(own, self.exact_calls.get((path, number), []))
            if given is None:
                self.calls.append(Call(path, number, outputs))
                return
            named = bound_arguments(self.module.get_submodule(path), *given)
            inputs = tuple(_bits(leaf) for leaf in _tensors(named))
            alone = _joined(own, self._exact_alone(path, given))
            self.calls.append(Call(path, number, outputs, inputs, alone))

        result = self._run(_copied(self.module), self.given, on_call, keep_inputs)
        own = [_Kept(leaf) for leaf in _tensors(result)]
        self.outputs = _joined(own, self.exact_outputs)

    def _run(
        self, module: torch.nn.Module, given: Given, on_call: OnCall, keep_inputs: bool = False
    ) -> Any:
        args, kwargs = _cloned(given)
        with ExitStack() as stack:
            stack.enter_context(self._random_state())
            stack.enter_context(every_module_called())
            stack.enter_context(torch.no_grad())
            for path in self.paths:
                stack.enter_context(_hooked(module, path, on_call, keep_inputs))
            torch.manual_seed(self.seed)
            return module(*args, **kwargs)

    def _exact_alone(self, path: str, given: Given) -> list[_Kept]:
        """Run one module in float64 on what it is fed in the model's own dtype."""
        if self.exact is None:
            return []
        args, kwargs = tree_map(wide, given)
        with self._random_state(), in_float64():
            try:
                return self._kept(self.exact.get_submodule(path)(*args, **kwargs))
            except Exception:  # state left by the run before; its own value stands in
                return []

    def _kept(self, result: Any) -> list[_Kept]:
        return [
            _Kept(leaf, sample_indices(leaf.numel(), self.sample, self.seed))
            for leaf in _tensors(result)
        ]

    def _random_state(self) -> Any:
        devices = {t.device for t in [*self.module.parameters(), *self.module.buffers()]}
        return torch.random.fork_rng([device for device in devices if device.type == "cuda"])


class _Kept:
    """The values of a tensor that are kept: copied, widened, flat and on the CPU."""

    def __init__(self, tensor: torch.Tensor, indices: Array | None = None) -> None:
        self.shape, self.dtype = tuple(tensor.shape), _name(tensor.dtype)
        self.indices = indices
        flat = tensor.detach().reshape(-1)
        if indices is not None:
            flat = flat[torch.from_numpy(indices).to(flat.device)]
        self.values: Array = wide(flat).cpu().resolve_conj().resolve_neg().numpy()


def _joined(own: Sequence[_Kept], exact: Sequence[_Kept]) -> tuple[Value, ...]:
    """Pair the values of the two runs; where the float64 run has no such tensor, own is both."""
    if [kept.shape for kept in own] != [kept.shape for kept in exact]:
        exact = own
    return tuple(
        Value(o.shape, o.dtype, e.values, o.values, o.indices, _reference_dtype(e.dtype))
        for o, e in zip(own, exact, strict=True)
    )


def _reference_dtype(dtype: str) -> str:
    # integers are exact in any run, and a complex128 is a pair of float64
    return dtype if dtype in ("float16", "bfloat16", "float32", "complex64") else "float64"


def _copied(module: torch.nn.Module) -> torch.nn.Module:
    # deepcopy refuses computed tensors, such as the weight that old-style weight norm recomputes
    computed: dict[int, Any] = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(module, computed).eval()
    except Exception as error:  # deepcopy runs the classes' own code
        raise ParityError(
            f"{type(module).__name__} cannot be copied ({type(error).__name__}: {error}). Parity "
            "runs a copy, so that the model itself stays as it is; give it a __deepcopy__."
        ) from error


def _cloned(value: Any) -> Any:
    return tree_map(lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v, value)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _bits(tensor: torch.Tensor) -> Tensor:
    return tensor_from_torch(tensor.detach().clone())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _own_dtype(module: torch.nn.Module, given: Given) -> str:
    for tensor in [*module.parameters(), *module.buffers(), *_tensors(given)]:
        if tensor.is_floating_point() or tensor.is_complex():
            return _name(tensor.dtype)
    return _name(torch.get_default_dtype())


@contextmanager
def _hooked(
    module: torch.nn.Module, path: str, on_call: OnCall, keep_inputs: bool
) -> Iterator[None]:
    """Report every call of a submodule, with its arguments as they were before it ran."""
    submodule = module.get_submodule(path)
    waiting: list[Given] = []  # a stack: a module may call itself
    number = 0

    def before(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
        waiting.append(_cloned((args, kwargs)))

    def after(_: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        nonlocal number
        on_call(path, number, waiting.pop() if keep_inputs else None, result)
        number += 1

    hooks = [submodule.register_forward_hook(after, with_kwargs=True)]
    if keep_inputs:
        hooks.append(submodule.register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
