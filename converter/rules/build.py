"""One torch module to its live MLX layer, weights included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import mlx.core as mx
import mlx.nn
import torch
from mlx.utils import tree_flatten
from torch.nn.modules.lazy import LazyModuleMixin

from mlxport.converter.errors import ConversionError, StateDictError, UnsupportedError
from mlxport.converter.plan import WeightPlan
from mlxport.converter.rules.refusals import reason_against
from mlxport.converter.rules.registry import LayerSpec, Refusal, rule_for
from mlxport.converter.tensor import Tensor, to_mlx
from mlxport.converter.torch_tensor import tensor_from_torch


def build_layer(module: torch.nn.Module) -> mlx.nn.Module:
    """Return the MLX layer that computes what a torch module computes, with the same weights.

    The layer takes its input in the axis order ``spec_for(module).axes`` and is in the module's
    mode (training or evaluation).

    Raises:
        UnsupportedError: no rule stands for the module, or its rule refuses this configuration.
        StateDictError: keys, shapes or tensors of its state dict do not fit; all are listed.
    """
    spec = spec_for(module)
    layer: mlx.nn.Module = spec.target(*spec.args, **spec.kwargs)
    state = _state(module)
    weights = _convert(module, spec, state)
    _check_shapes(module, layer, weights)
    layer.load_weights(list(weights.items()), strict=True)
    layer.train(module.training)
    return layer


def spec_for(module: torch.nn.Module) -> LayerSpec:
    """Return what to build in MLX for a torch module.

    Raises:
        UnsupportedError: no rule stands for the module, or its rule refuses this configuration.
    """
    name = type(module).__name__
    if changes := list(_alterations(module)):
        raise UnsupportedError.listing(
            f"{name} does more than its class stands for:",
            changes,
            "Undo this and convert again, or convert the whole model, which reads what it does.",
        )
    rule = rule_for(module)
    if rule is None:
        raise UnsupportedError(
            f"{name} ({type(module).__module__}) cannot be converted as a layer: "
            f"{reason_against(module)}. `mlxport layers` lists the classes that can."
        )
    try:
        spec: LayerSpec = rule.build(module)
    except Refusal as refusal:
        raise UnsupportedError(f"{name}: {refusal} (module: {module})") from refusal
    return spec


def _alterations(module: torch.nn.Module) -> Iterator[str]:
    """Say what was done to a module after its construction that changes what it computes."""
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        return  # its rule says what to do
    for name, value in vars(module).items():
        if callable(value) and callable(getattr(type(module), name, None)):
            yield f"its method {name} was replaced on the instance"
    for name in getattr(module, "parametrizations", {}):
        yield (
            f"{name} is parametrised; torch.nn.utils.parametrize.remove_parametrizations(module, "
            f"{name!r}) writes the value out"
        )
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        for hook in getattr(module, kind).values():
            yield _describe_hook(hook)


def _describe_hook(hook: object) -> str:
    name = getattr(hook, "__qualname__", type(hook).__name__)
    folds = {"WeightNorm": "remove_weight_norm", "SpectralNorm": "remove_spectral_norm"}
    if name in folds:
        return f"{name} computes its weight; torch.nn.utils.{folds[name]}(module) writes it out"
    return f"a forward hook is registered on it ({name})"


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
