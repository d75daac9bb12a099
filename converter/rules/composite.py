"""Check that a composite layer is still what its constructor builds, as its rule assumes.

A rule returns constructor arguments, so it is wrong if a part was replaced or an attribute changed
after construction. The layer is compared with one built from these arguments on the meta device.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mlxport.converter.plan.weight_plan import Entry
from mlxport.converter.rules.entries import entry_of
from mlxport.converter.rules.registry import Refusal

ADVICE = "convert the whole model, which reads what it does"

# Attributes that change nothing in what a forward pass computes.
_BOOKKEEPING = frozenset(
    {
        "training",
        "inplace",
        "num_layers",  # layers may have been dropped; those there count
        "activation_relu_or_gelu",  # chooses the fast path, as the next three
        "enable_nested_tensor",
        "use_nested_tensor",
        "mask_check",
    }
)
# A subclass of Linear that computes the same; PyTorch excludes it from quantisation.
_SAME: dict[type, type] = {torch.nn.modules.linear.NonDynamicallyQuantizableLinear: torch.nn.Linear}


def every_tensor(module: torch.nn.Module, rebuild: Callable[[], Any]) -> tuple[Entry, ...]:
    """Return entries that map all tensors of a composite layer to parameters of the same names.

    Args:
        module: the layer.
        rebuild: builds the layer with the arguments that its rule read.

    Raises:
        Refusal: the two differ in more than the values of their tensors; all of it is listed.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about fast paths not taken
        expected = rebuild()
    if differences := list(_differences(module, expected)):
        raise Refusal.listing(
            "it is not as its constructor builds it:", differences, f"To keep this, {ADVICE}."
        )
    return tuple(entry_of(key) for key in module.state_dict())


@contextmanager
def expecting_usual_parts() -> Iterator[None]:
    """Raise ``Refusal`` if arguments cannot be read from a layer's parts, as one was replaced."""
    try:
        yield
    except (AttributeError, IndexError, TypeError) as error:
        raise Refusal(f"a part of it was exchanged or removed ({error}); {ADVICE}") from error


def settings(module: torch.nn.Module) -> dict[str, Any]:
    """Return the attributes of a module, other than tensors and modules, that its forward reads."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in _BOOKKEEPING
    }


def _differences(module: torch.nn.Module, rebuilt: torch.nn.Module) -> Iterator[str]:
    found, expected = (dict(m.named_modules(remove_duplicate=False)) for m in (module, rebuilt))
    for path in sorted(found.keys() ^ expected.keys()):
        yield f"{path}: {'added' if path in found else 'missing'}"
    for path, part in found.items():
        if path in expected:
            at = f"{path}: " if path else ""
            yield from (f"{at}{text}" for text in _part_differences(part, expected[path], path))


def _part_differences(part: torch.nn.Module, rebuilt: torch.nn.Module, path: str) -> Iterator[str]:
    kinds = [_SAME.get(type(m), type(m)) for m in (part, rebuilt)]
    if path and kinds[0] is not kinds[1]:
        yield f"is a {kinds[0].__name__}, not a {kinds[1].__name__}"
        return
    found, expected = settings(part), settings(rebuilt)
    for name, value in expected.items():
        if name not in found or found[name] != value:
            yield f"{name} is {found.get(name)!r}, not {value!r}"
    for name, value in vars(part).items():
        if callable(value) and callable(getattr(type(part), name, None)):
            yield f"its method {name} was replaced on the instance"
    shapes = [
        {
            name: tuple(t.shape)
            for tensors in (m.named_parameters(recurse=False), m.named_buffers(recurse=False))
            for name, t in tensors
        }
        for m in (part, rebuilt)
    ]
    if shapes[0] != shapes[1]:
        yield f"has the tensors {shapes[0]}, not {shapes[1]}"
    if path and (part._forward_hooks or part._forward_pre_hooks):
        yield "a forward hook is registered on it"
