"""Which argument of ``forward`` each input of a captured submodule is.

torch.export orders the inputs of a submodule by their first use, and forgets their names. Running
the model and the captured program once on the example inputs tells them apart by value. What a
model hands to a submodule only while it is captured (a mask it can do without when it runs) is told
by its shape among what was handed over then.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.naming import argument_name
from mlxport.converter.torch_call import bound_arguments, parameters_of

SAMPLES = 257
CLOSE = 1e-3  # decompositions round differently; other tensors differ by far more


@dataclass(frozen=True)
class Argument:
    """One tensor handed to a module.

    Attributes:
        position: its place among the tensors of the call, in the order of ``forward``.
        name: what the parameter of ``forward`` is called.
    """

    position: int
    name: str


@dataclass(frozen=True)
class Given:
    """A tensor handed to a module, and some of its values."""

    argument: Argument
    sample: torch.Tensor


@dataclass(frozen=True)
class Traced:
    """A tensor handed to a module while the model was captured, of which no values are known."""

    argument: Argument
    shape: tuple[Any, ...]
    dtype: torch.dtype

    def may_be(self, tensor: torch.Tensor) -> bool:
        """Whether this may be a tensor, by dtype and shape; sizes left open are any."""
        return (
            tensor.dtype == self.dtype
            and tensor.ndim == len(self.shape)
            and all(
                not isinstance(n, int) or n == m
                for n, m in zip(self.shape, tensor.shape, strict=True)
            )
        )


def watch_calls(model: torch.nn.Module) -> tuple[dict[str, list[Given]], list[Any]]:
    """Note what every submodule is given at its first call.

    Returns:
        path -> the tensors of its first call, filled while the model runs; and the hooks, which
        raise CaptureError where a module is given a packed sequence.
    """
    calls: dict[str, list[Given]] = {}
    hooks = []
    for path, module in model.named_modules(remove_duplicate=False):

        def note(m: torch.nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            _refuse_packed(path, m, (*args, *kwargs.values()))
            calls.setdefault(path, _named(m, args, kwargs))

        hooks.append(module.register_forward_pre_hook(note, with_kwargs=True))
    return calls, hooks


@contextmanager
def watch_capture(model: torch.nn.Module) -> Iterator[dict[str, list[Traced]]]:
    """Note what every submodule is given at its first call while the model is captured."""
    traced: dict[str, list[Traced]] = {}
    hooks = []
    for path, module in model.named_modules(remove_duplicate=False):

        def note(m: torch.nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            if path not in traced:
                traced[path] = [
                    Traced(argument, tuple(tensor.shape), tensor.dtype)
                    for argument, tensor in _arguments(m, args, kwargs)
                ]

        hooks.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        yield traced
    finally:
        for hook in hooks:
            hook.remove()


def order_arguments(
    calls: Mapping[str, Sequence[Given]],
    traced: Mapping[str, Sequence[Traced]],
    root: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, tuple[Argument, ...]]:
    """Return, for the submodules of a captured program, which argument each input is.

    Args:
        calls: what the torch model's submodules were given when it ran.
        traced: what they were given while it was captured.
        root: the unflattened program.
        args: positional example inputs.
        kwargs: keyword example inputs.

    Returns:
        path -> one argument for each placeholder; paths that cannot be told are left out.
    """
    orders: dict[str, tuple[Argument, ...]] = {}
    received: dict[str, list[torch.Tensor]] = {}
    hooks = []
    for path, given in calls.items():
        if len(given) == 1 and len(traced.get(path, given)) == 1:
            orders[path] = (given[0].argument,)
            continue
        try:
            captured = root.get_submodule(path)
        except AttributeError:
            continue

        def note(_: torch.nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
            received.setdefault(path, [t.detach().clone() for t in tensors])

        hooks.append(captured.register_forward_pre_hook(note, with_kwargs=True))
    if hooks:
        with torch.no_grad():
            root(*args, **kwargs)
    for path, tensors in received.items():
        matched = _match(tensors, calls[path], traced.get(path, ()))
        if matched is not None:
            orders[path] = matched
    return orders


def _refuse_packed(path: str, module: torch.nn.Module, given: Sequence[Any]) -> None:
    # torch.export's own complaint is about tensors turned to numbers, deep inside the layer
    if any(isinstance(value, PackedSequence) for value in given):
        raise CaptureError(
            f"{path} ({type(module).__name__}) takes a PackedSequence, whose computation depends "
            "on the values of the lengths. Call it on sequences of one length, or each alone, "
            "without pack_padded_sequence."
        )


def _named(module: torch.nn.Module, args: Any, kwargs: Any) -> list[Given]:
    return [
        Given(argument, sample(tensor)) for argument, tensor in _arguments(module, args, kwargs)
    ]


def _arguments(
    module: torch.nn.Module, args: Any, kwargs: Any
) -> list[tuple[Argument, torch.Tensor]]:
    """Return the tensors of a call, in the order of ``forward``, and what they are called there."""
    found: list[tuple[Argument, torch.Tensor]] = []
    parameters = parameters_of(module)
    given: dict[str, Any] = {}
    for name, value in bound_arguments(module, args, kwargs).items():
        spread = name in parameters and parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        given |= value if spread else {name: value}
    for name, value in given.items():
        leaves = [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, torch.Tensor)]
        for i, tensor in enumerate(leaves):
            own = "x" if name in ("input", "inputs", "args") and len(leaves) == 1 else name
            label = argument_name(own if len(leaves) == 1 else f"{own}{i}")
            found.append((Argument(len(found), label), tensor))
    return found


def sample(tensor: torch.Tensor) -> torch.Tensor:
    """Return some values of a tensor, by which it is told from others."""
    flat = tensor.detach().reshape(-1)
    step = max(flat.numel() // SAMPLES, 1)
    return flat[::step].to(torch.complex128).clone()


def _match(
    tensors: Sequence[torch.Tensor], given: Sequence[Given], traced: Sequence[Traced]
) -> tuple[Argument, ...] | None:
    """Return which argument each tensor is: by value, what is left by shape; None if unsure."""
    free = list(given)
    matched: list[Argument | None] = []
    for one in map(sample, tensors):
        found = next((g for g in free if alike(one, g.sample)), None)
        matched.append(found.argument if found else None)
        if found is not None:
            free.remove(found)
    if None not in matched:
        return tuple(argument for argument in matched if argument is not None)
    known = {argument.name for argument in matched if argument is not None}
    by_name = {t.argument.name: t.argument for t in traced}
    if not known <= by_name.keys():
        return None
    complete = []
    for tensor, argument in zip(tensors, matched, strict=True):
        fits = [t for t in traced if t.argument.name not in known and t.may_be(tensor)]
        if argument is None and len(fits) != 1:
            return None
        complete.append(by_name[argument.name] if argument else fits[0].argument)
    return tuple(complete) if len(set(complete)) == len(complete) else None


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two samples are of one tensor, computed twice."""
    if a.shape != b.shape:
        return False
    scale = b.abs().nan_to_num().max() if b.numel() else torch.zeros(())
    return torch.allclose(a, b, rtol=0.0, atol=float(scale) * CLOSE, equal_nan=True)
