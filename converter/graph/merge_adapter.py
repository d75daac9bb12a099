"""Translate a torch model as if its LoRA adapter were added to the weights of its base.

For a while the model has the layers of the base with the merged weights. So it is captured and
emitted; the plan makes these weights of base and adapter, and parity holds the model to the one
in which they are apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch

from mlxport.converter.arguments import argument
from mlxport.converter.errors import ConversionError
from mlxport.converter.graph.lowering.weight_plan import UNUSED, identity_of, state_tensors
from mlxport.converter.graph.translate import Translation
from mlxport.converter.plan.fold_steps import AddScaled, MergeLowRank
from mlxport.converter.plan.low_rank import WeightAxes, matrices_of
from mlxport.converter.plan.tensor import TensorSpec
from mlxport.converter.plan.torch_tensor import tensor_from_torch, tensor_to_torch
from mlxport.converter.plan.weight_plan import Entry, WeightPlan
from mlxport.converter.torch_model.loading_code import state_of
from mlxport.converter.torch_model.lora import LoRALayer
from mlxport.converter.torch_model.model_state import left_as_it_was


@contextmanager
def merged(model: torch.nn.Module, layers: Mapping[str, WeightAxes]) -> Iterator[None]:
    """Let a model have merged layers for a while.

    Args:
        model: with the layers of `put_adapter`.
        layers: their paths, and how their weights lie.
    """
    with left_as_it_was(model):
        state = state_of(model)
        for path, axes in layers.items():
            layer = model.get_submodule(path)
            assert isinstance(layer, LoRALayer)
            base = layer.base_layer
            for name, entry in _entries(path, layer, axes).items():
                sources = tuple(tensor_from_torch(state[key]) for key in entry.sources)
                value, old = tensor_to_torch(entry.apply(sources)[0]), state[entry.sources[0]]
                last = name.rpartition(".")[2]
                base._parameters[last] = torch.nn.Parameter(value, old.requires_grad)
            parent, _, last = path.rpartition(".")
            setattr(model.get_submodule(parent), last, base)
        yield


def with_merges(
    translation: Translation, model: torch.nn.Module, layers: Mapping[str, WeightAxes]
) -> Translation:
    """Return the translation of a merged model as one of the model that has its adapter apart.

    Args:
        translation: made within `merged`.
        model: as it is outside of that.
        layers: as for `merged`.
    """
    merges: dict[str, Entry] = {}
    for path, axes in layers.items():
        layer = model.get_submodule(path)
        assert isinstance(layer, LoRALayer)
        merges |= _entries(path, layer, axes)
    names = {
        f"{path}.{name}": f"{path}.base_layer.{name}"
        for path in layers
        for name in state_of(model.get_submodule(f"{path}.base_layer"))
    }
    plan = translation.conversion.plan
    entries = tuple(_whole(entry, merges) for entry in plan.entries)
    plan = replace(plan, entries=entries).renamed(names)
    conversion = replace(translation.conversion, plan=_named(plan, model))
    return replace(translation, conversion=conversion)


def _named(plan: WeightPlan, model: torch.nn.Module) -> WeightPlan:
    """Return the plan with what it says of the keys of a model that has its adapter apart."""
    state = state_of(model)
    used = {key for entry in plan.entries for key in entry.sources}
    first = {identity_of(state[key]): key for key in sorted(used, reverse=True)}
    ties = {key: first[identity_of(state[key])] for key in sorted(used)}
    rest = [key for key in state if key not in {*used, *plan.ignored, *plan.aliases}]
    aliases = {
        key: first[identity_of(state[key])] for key in rest if identity_of(state[key]) in first
    }
    return replace(
        plan,
        aliases={**plan.aliases, **aliases},
        ignored={**plan.ignored, **{key: UNUSED for key in rest if key not in aliases}},
        specs={key: TensorSpec.of(tensor) for key, tensor in state_tensors(model).items()},
        ties={key: other for key, other in ties.items() if key != other},
    )


def _whole(entry: Entry, merges: Mapping[str, Entry]) -> Entry:
    """Return an entry whose merged sources are made of base and adapter."""
    if not any(key in merges for key in entry.sources):
        return entry
    first, *rest = entry.sources
    if first not in merges or any(key in merges for key in rest):
        raise ConversionError(
            f"{', '.join(entry.targets)} is made of a merged weight or bias and others at once, "
            f"which is not known: leave {argument('merge', True)} out"
        )
    merge = merges[first]
    return replace(entry, sources=(*merge.sources, *rest), steps=(*merge.steps, *entry.steps))


def _entries(path: str, layer: LoRALayer, axes: WeightAxes) -> dict[str, Entry]:
    """Return name in the merged model -> how weight and bias come of base and adapter."""
    weight, bias = f"{path}.weight", f"{path}.bias"
    parts = state_of(layer)
    sources = tuple(f"{path}.{name}" for name in ("base_layer.weight", *matrices_of(parts)))
    found = {weight: Entry(sources, (weight,), (MergeLowRank(layer.scale, axes),))}
    if "lora_B.bias" in parts:
        addends = (f"{path}.base_layer.bias", f"{path}.lora_B.bias")
        found[bias] = Entry(addends, (bias,), (AddScaled(layer.scale),))
    return found
