"""Build the live MLX layer of one torch module, with its weights (``mlxport.convert_layer``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn
import torch
from mlx.utils import tree_flatten

from mlxport.converter.errors import ConversionError, StateDictError
from mlxport.converter.plan.tensor import Tensor, to_mlx
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.rules.containers import CONTAINERS
from mlxport.converter.rules.registry import LayerSpec
from mlxport.converter.rules.spec import spec_for


def build_layer(module: torch.nn.Module) -> Any:
    """Return the MLX layer of a torch module, with its weights.

    The layer takes its input in the axis order ``spec_for(module).axes`` and is in the module's
    mode (training or evaluation). A ``ModuleList`` or ``ParameterList`` becomes a list, a
    ``ModuleDict`` or ``ParameterDict`` a dict.

    Raises:
        UnsupportedError: the module has no rule, or its rule refuses this configuration.
        StateDictError: keys, shapes or tensors of its state dict do not fit; all are listed.
    """
    spec = spec_for(module)
    if isinstance(module, CONTAINERS):
        return _build_container(module, spec)
    build = spec.standalone or spec.target
    layer: mlx.nn.Module = build(*spec.args, **spec.kwargs)
    weights = _convert(module, spec, _state(module))
    _check_shapes(module, layer, weights)
    layer.load_weights(list(weights.items()), strict=True)
    layer.train(module.training)
    return layer


def _build_container(module: torch.nn.Module, spec: LayerSpec) -> Any:
    if isinstance(module, (torch.nn.ParameterList, torch.nn.ParameterDict)):
        items: dict[str, Any] = _convert(module, spec, _state(module))
    else:
        items = {
            name: build_layer(child) for name, child in module._modules.items() if child is not None
        }
    if spec.target is dict:
        return items
    if spec.target is list:
        return list(items.values())
    chain: mlx.nn.Module = spec.target()
    chain.train(module.training)  # first: it would change the modes of its layers
    chain.layers = list(items.values())
    return chain


def _state(module: torch.nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    problems: list[str] = []
    for key, tensor in module.state_dict().items():
        try:
            state[key] = tensor_from_torch(tensor)
        except StateDictError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise StateDictError.listing(f"{module}: tensors that cannot be converted", problems)
    return state


def _convert(
    module: torch.nn.Module, spec: LayerSpec, state: Mapping[str, Tensor]
) -> dict[str, mx.array]:
    weights: dict[str, mx.array] = {}
    problems: list[str] = []
    try:
        converted = dict(WeightPlan(spec.entries, spec.ignored).apply(state))
    except StateDictError as error:
        raise StateDictError(f"{module}: {error}") from error
    for name, tensor in converted.items():
        try:
            weights[name] = to_mlx(tensor)
        except ConversionError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise StateDictError.listing(f"{module}: tensors MLX cannot hold", problems)
    return weights


def _check_shapes(
    module: torch.nn.Module, layer: mlx.nn.Module, weights: Mapping[str, mx.array]
) -> None:
    expected: dict[str, mx.array] = dict(tree_flatten(layer.parameters()))
    problems = [f"{name}: no value" for name in sorted(expected.keys() - weights.keys())]
    problems += [f"{name}: not in the layer" for name in sorted(weights.keys() - expected.keys())]
    problems += [
        f"{name}: expected {value.shape}, got {weights[name].shape}"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if problems:
        raise StateDictError.listing(f"{module} does not fit {type(layer).__name__}:", problems)
