"""Which argument of ``forward`` each input of a captured submodule is.

torch.export orders the inputs of a submodule by their first use, and forgets their names. Running
the model and the captured program once on the example inputs tells them apart by value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.naming import argument_name
from mlxport.converter.torch_call import bound_arguments

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


def order_arguments(
    calls: Mapping[str, Sequence[Given]],
    root: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, tuple[Argument, ...]]:
    """Return, for the submodules of a captured program, which argument each input is.

    Args:
        calls: what the torch model's submodules were given.
        root: the unflattened program.
        args: positional example inputs.
        kwargs: keyword example inputs.

    Returns:
        path -> one argument for each placeholder; paths that cannot be told are left out.
    """
    orders: dict[str, tuple[Argument, ...]] = {
        path: (given[0].argument,) for path, given in calls.items() if len(given) == 1
    }
    several = [path for path, given in calls.items() if len(given) > 1]
    received: dict[str, list[torch.Tensor]] = {}
    hooks = []
    for path in several:
        try:
            captured = root.get_submodule(path)
        except AttributeError:
            continue

        def note(_: torch.nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
            received.setdefault(path, [sample(t) for t in tensors])

        hooks.append(captured.register_forward_pre_hook(note, with_kwargs=True))
    if hooks:
        with torch.no_grad():
            root(*args, **kwargs)
    for path, samples in received.items():
        matched = _match(samples, calls[path])
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
    given: list[Given] = []
    for name, value in bound_arguments(module, args, kwargs).items():
        leaves = [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, torch.Tensor)]
        for i, tensor in enumerate(leaves):
            own = "x" if name in ("input", "inputs", "args") and len(leaves) == 1 else name
            label = argument_name(own if len(leaves) == 1 else f"{own}{i}")
            given.append(Given(Argument(len(given), label), sample(tensor)))
    return given


def sample(tensor: torch.Tensor) -> torch.Tensor:
    """Return some values of a tensor, by which it is told from others."""
    flat = tensor.detach().reshape(-1)
    step = max(flat.numel() // SAMPLES, 1)
    return flat[::step].to(torch.complex128).clone()


def _match(samples: Sequence[torch.Tensor], given: Sequence[Given]) -> tuple[Argument, ...] | None:
    free = list(given)
    matched = []
    for one in samples:
        found = next((g for g in free if alike(one, g.sample)), None)
        if found is None:
            return None
        free.remove(found)
        matched.append(found.argument)
    return tuple(matched)


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two samples are of one tensor, computed twice."""
    if a.shape != b.shape:
        return False
    scale = b.abs().nan_to_num().max() if b.numel() else torch.zeros(())
    return torch.allclose(a, b, rtol=0.0, atol=float(scale) * CLOSE, equal_nan=True)
