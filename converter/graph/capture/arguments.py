"""Which argument of ``forward`` each input of a captured submodule is.

torch.export orders the inputs of a submodule by their first use, and forgets their names. What the
model's were when it was tried, and the captured program run once on the same inputs, show which is
which by their values. What a model hands to a submodule only while it is captured (a mask it can do
without when it runs) is recognised by its shape among what was handed over then.
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
from mlxport.converter.graph.capture.by_value import Seen, places
from mlxport.converter.graph.ir.caches import LayerTensor
from mlxport.converter.graph.ir.naming import argument_name
from mlxport.converter.torch_model.calls import bound_arguments, parameters_of


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
    """A tensor handed to a module."""

    argument: Argument
    tensor: Seen


@dataclass(frozen=True)
class Traced:
    """A tensor handed to a module while the model was captured, of which no values are known."""

    argument: Argument
    shape: tuple[Any, ...]
    dtype: torch.dtype

    def may_be(self, tensor: Seen) -> bool:
        """Whether this may be a tensor, by dtype and shape; sizes left open are any."""
        if tensor.dtype != self.dtype or len(tensor.shape) != len(self.shape):
            return False
        sizes = zip(self.shape, tensor.shape, strict=True)
        return all(traced == size for traced, size in sizes if isinstance(traced, int))


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


class ArgumentsOrder:
    """Which argument each input of a captured submodule is; known once the program has run.

    Args:
        calls: what the torch model's submodules were given when it ran.
        traced: what they were given while it was captured.
        root: the unflattened program.
    """

    def __init__(
        self,
        calls: Mapping[str, Sequence[Given]],
        traced: Mapping[str, Sequence[Traced]],
        root: torch.nn.Module,
    ) -> None:
        self._calls, self._traced = calls, traced
        self._single: dict[str, tuple[Argument, ...]] = {}
        self._received: dict[str, list[Seen]] = {}
        self._layers: dict[str, list[bool]] = {}  # of each tensor, whether a layer of a cache
        self.hooks: list[Any] = []
        for path, given in calls.items():
            if len(given) == 1 and len(traced.get(path, given)) == 1:
                self._single[path] = (given[0].argument,)
                continue
            try:
                captured = root.get_submodule(path)
            except AttributeError:
                continue

            def note(_: torch.nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
                tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
                self._layers.setdefault(path, [isinstance(t, LayerTensor) for t in tensors])
                others = [t for t in tensors if not isinstance(t, LayerTensor)]
                self._received.setdefault(path, list(map(Seen.of, others)))

            self.hooks.append(captured.register_forward_pre_hook(note, with_kwargs=True))

    def found(self) -> dict[str, tuple[Argument, ...]]:
        """Return path -> one argument for each placeholder; without an answer it is left out."""
        orders = dict(self._single)
        for path, tensors in self._received.items():
            matched = _match(tensors, self._calls[path], self._traced.get(path, ()))
            if matched is not None:
                orders[path] = _with_layers(matched, self._layers[path])
        return orders


def _with_layers(matched: Sequence[Argument], layers: Sequence[bool]) -> tuple[Argument, ...]:
    """Return the arguments of all tensors: layers of a cache come behind all others."""
    known = iter(matched)
    last = max((argument.position for argument in matched), default=-1)
    return tuple(
        Argument(last + 1 + place, "cache") if is_layer else next(known)
        for place, is_layer in enumerate(layers)
    )


def _refuse_packed(path: str, module: torch.nn.Module, given: Sequence[Any]) -> None:
    # what torch.export complains about is tensors turned to numbers, deep inside the layer
    if any(isinstance(value, PackedSequence) for value in given):
        raise CaptureError(
            f"{path} ({type(module).__name__}) takes a PackedSequence, whose computation depends "
            "on the values of the lengths. Call it on sequences of one length, or each alone, "
            "without pack_padded_sequence."
        )


def _named(module: torch.nn.Module, args: Any, kwargs: Any) -> list[Given]:
    return [
        Given(argument, Seen.of(tensor)) for argument, tensor in _arguments(module, args, kwargs)
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


def _match(
    tensors: Sequence[Seen], given: Sequence[Given], traced: Sequence[Traced]
) -> tuple[Argument, ...] | None:
    """Return which argument each tensor is: by value, what is left by shape; None if unsure."""
    found = places(tensors, [g.tensor for g in given])
    matched = [None if place is None else given[place].argument for place in found]
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
