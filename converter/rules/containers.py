"""Rules for containers: Sequential, and lists and dicts of layers or parameters.

A Sequential has one axis order. If its layers take different ones, arrays would have to be
transposed between them, which needs their number of axes: known in a whole model, not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import mlx.nn as nn
import torch

from mlxport.converter.errors import UnsupportedError
from mlxport.converter.plan.weight_plan import Entry
from mlxport.converter.rules.entries import entry_of
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, rule
from mlxport.converter.rules.spec import spec_for

COLLECTIONS = (
    torch.nn.ModuleList,
    torch.nn.ModuleDict,
    torch.nn.ParameterList,
    torch.nn.ParameterDict,
)
CONTAINERS = (torch.nn.Sequential, *COLLECTIONS)

_ADVICE = "convert the whole model with example inputs, which turns arrays where it has to"
_ONE = "no tensor is held twice"


@rule(
    torch.nn.Sequential,
    target="mlx.nn.Sequential",
    restrictions=f"all layers want one axis order; {_ONE}",
    leaf=False,
)
def sequential(module: torch.nn.Sequential) -> LayerSpec:
    """``mlx.nn.Sequential`` of the MLX layers; tensors are named ``layers.0.weight`` and so on."""
    _check_unshared(module)
    specs = _specs(module)
    idle = [name for name in specs if isinstance(module.get_submodule(name), COLLECTIONS)]
    if idle:
        raise Refusal(f"its layers {', '.join(idle)} are collections, which compute nothing")
    prefixes = {name: f"layers.{i}" for i, name in enumerate(specs)}
    entries, ignored = _joined(specs, prefixes)
    spatial = {spec.rank for spec in specs.values() if spec.axes is Axes.CHANNELS_LAST}
    return LayerSpec(
        nn.Sequential,
        entries=entries,
        ignored=ignored,
        axes=_common_axes(module, specs),
        rank=spatial.pop() if len(spatial) == 1 else None,
    )


@rule(torch.nn.ModuleList, target="list", restrictions=_ONE, leaf=False)
@rule(torch.nn.ModuleDict, target="dict", restrictions=_ONE, leaf=False)
def modules(module: torch.nn.ModuleList | torch.nn.ModuleDict) -> LayerSpec:
    """A list or dict of the MLX layers, each with the axis order of its rule."""
    _check_unshared(module)
    specs = _specs(module)
    entries, ignored = _joined(specs, {name: name for name in specs})
    target = list if isinstance(module, torch.nn.ModuleList) else dict
    return LayerSpec(target, entries=entries, ignored=ignored, axes=Axes.LOGICAL)


@rule(torch.nn.ParameterList, target="list", restrictions=f"of tensors; {_ONE}", leaf=False)
@rule(torch.nn.ParameterDict, target="dict", restrictions=f"of tensors; {_ONE}", leaf=False)
def parameters(module: torch.nn.ParameterList | torch.nn.ParameterDict) -> LayerSpec:
    """A list or dict of arrays, unchanged."""
    _check_unshared(module)
    state = module.state_dict()
    others = [name for name, value in _items(module) if name not in state]
    if others:
        raise Refusal(f"{', '.join(others)} hold no tensors")
    target = list if isinstance(module, torch.nn.ParameterList) else dict
    return LayerSpec(target, entries=tuple(map(entry_of, state)), axes=Axes.LOGICAL)


def _items(module: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(module, torch.nn.ParameterList):
        return ((str(i), value) for i, value in enumerate(module))
    return iter(module.items())


def _specs(module: torch.nn.Module) -> dict[str, LayerSpec]:
    """Return the specs of the children by name; all that have none are listed in one error."""
    specs, problems = {}, []
    for name, child in module._modules.items():
        try:
            if child is None:
                raise UnsupportedError("there is no module")
            specs[name] = spec_for(child)
        except UnsupportedError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise Refusal.listing("layers of it cannot be converted:", problems)
    return specs


def _joined(
    specs: Mapping[str, LayerSpec], prefixes: Mapping[str, str]
) -> tuple[tuple[Entry, ...], dict[str, str]]:
    """Return the joint plan: sources prefixed by the layers' names, targets by ``prefixes``."""
    entries = tuple(
        replace(
            entry,
            sources=tuple(f"{name}.{source}" for source in entry.sources),
            targets=tuple(f"{prefixes[name]}.{target}" for target in entry.targets),
        )
        for name, spec in specs.items()
        for entry in spec.entries
    )
    ignored = {
        f"{name}.{key}": why for name, spec in specs.items() for key, why in spec.ignored.items()
    }
    return entries, ignored


def _common_axes(module: torch.nn.Module, specs: Mapping[str, LayerSpec]) -> Axes:
    wanted = {spec.axes for spec in specs.values()} - {Axes.ANY}
    if wanted == {Axes.LOGICAL, Axes.FEATURES_LAST}:
        return Axes.LOGICAL  # which has the features last
    if len(wanted) > 1:
        listing = [
            f"{name} ({type(module.get_submodule(name)).__name__}): {spec.axes.value}"
            for name, spec in specs.items()
            if spec.axes is not Axes.ANY
        ]
        heading = "its layers want different axis orders:"
        raise Refusal.listing(heading, listing, f"To keep them together, {_ADVICE}.")
    return wanted.pop() if wanted else Axes.ANY


def _check_unshared(module: torch.nn.Module) -> None:
    """Refuse shared tensors: they would be two arrays in MLX, and diverge in training."""
    names: dict[int, list[str]] = {}
    for named in (module.named_parameters, module.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    shared = [" is ".join(group) for group in names.values() if len(group) > 1]
    if shared:
        raise Refusal.listing("it holds tensors twice, which MLX would train apart:", shared)
