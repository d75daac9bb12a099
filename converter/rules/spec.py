"""What to build in MLX for one torch module: its rule's answer, where it still is its class."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.modules.lazy import LazyModuleMixin

from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.refusals import reason_against
from mlxport.converter.rules.registry import LayerSpec, Refusal, rule_for


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
