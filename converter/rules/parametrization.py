"""Fold weight norm, spectral norm and orthogonal parametrizations into the plan of a plain layer.

A parametrized module computes some of its tensors from others before each forward pass. Once these
tensors are computed and stored (folded), the module does what its plain class does. So the rule of
that class serves it, and the plan alone differs: the sources of a folded tensor are the tensors it
is computed from, and a step of ``mlxport.converter.plan.fold_steps`` computes it.

Both forms of PyTorch are known: ``torch.nn.utils.parametrizations`` (keys such as
``parametrizations.weight.original0``) and the forward pre-hooks that preceded them (``weight_g``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from mlxport.converter.plan.fold_steps import FoldOrthogonal, FoldSpectralNorm, FoldWeightNorm
from mlxport.converter.plan.steps import Step
from mlxport.converter.plan.weight_plan import Entry
from mlxport.converter.rules.plain_numbers import with_plain_numbers
from mlxport.converter.rules.registry import LayerSpec, Refusal, Rule

_TRAINING = "spectral norm takes another step at each forward pass in training; call eval() first"


@dataclass(frozen=True)
class ParametrizedTensor:
    """One tensor that a module computes from others, and the step that computes it once.

    Attributes:
        name: the computed tensor (``"weight"``).
        sources: keys of the state dict it is computed from, in the order the step takes them.
        step: computes the tensor.
    """

    name: str
    sources: tuple[str, ...]
    step: Step

    @property
    def same_shape_source(self) -> str:
        """The source that has the shape and dtype of the computed tensor."""
        return self.sources[1 if isinstance(self.step, FoldWeightNorm) else 0]


def parametrized_tensors(module: torch.nn.Module) -> tuple[ParametrizedTensor, ...]:
    """Return the tensors of a module that can be folded; none for a plain module."""
    return (*_from_parametrizations(module), *_from_hooks(module))


def folding_obstacles(module: torch.nn.Module) -> Iterator[str]:
    """Yield a line for each parametrization or hook of a module that cannot be folded."""
    foldable = {tensor.name for tensor in _from_parametrizations(module)}
    for name, parts in getattr(module, "parametrizations", {}).items():
        if name not in foldable:
            kinds = " after ".join(type(part).__name__ for part in reversed(parts))
            yield (
                f"{name} is parametrised ({kinds}); torch.nn.utils.parametrize."
                f"remove_parametrizations(module, {name!r}) writes the value out"
            )
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        for hook in getattr(module, kind).values():
            if type(hook) not in _HOOKS:
                name = getattr(hook, "__qualname__", type(hook).__name__)
                yield f"a forward hook is registered on it ({name})"
    tensors = parametrized_tensors(module)
    if module.training and any(isinstance(t.step, FoldSpectralNorm) for t in tensors):
        yield _TRAINING


def without_parametrizations(
    module: torch.nn.Module, tensors: tuple[ParametrizedTensor, ...]
) -> torch.nn.Module:
    """Return a module of the plain class that shares all tensors of ``module`` but the folded ones.

    A folded tensor is replaced by another of its shape and dtype, which is all that rules read. The
    module itself is not changed.

    Args:
        module: a parametrized module.
        tensors: its :func:`parametrized_tensors`.
    """
    cls: Any = parametrize.type_before_parametrizations(module)
    twin: torch.nn.Module = cls.__new__(cls)
    for name, value in vars(module).items():
        twin.__dict__[name] = value.copy() if isinstance(value, dict) else value
    folded = {key for tensor in tensors for key in tensor.sources}
    for kind in ("_parameters", "_buffers"):
        entries = getattr(twin, kind)
        twin.__dict__[kind] = {key: value for key, value in entries.items() if key not in folded}
    twin._modules.pop("parametrizations", None)
    hooks = twin._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if type(hook) in _HOOKS]:
        del hooks[key]
    state = module.state_dict(keep_vars=True)
    for tensor in tensors:
        twin.__dict__.pop(tensor.name, None)
        value = torch.nn.Parameter(state[tensor.same_shape_source].detach(), requires_grad=False)
        twin._parameters[tensor.name] = value
    return twin


def build_spec(rule: Rule, module: torch.nn.Module) -> LayerSpec:
    """Return the spec that a rule builds for a module, parametrized tensors folded.

    Raises:
        Refusal: the rule does not serve this configuration.
    """
    tensors = parametrized_tensors(module)
    if not tensors:
        return rule.build(with_plain_numbers(module))
    plain = without_parametrizations(module, tensors)
    return fold_into_plan(rule.build(with_plain_numbers(plain)), tensors)


def fold_into_plan(spec: LayerSpec, tensors: tuple[ParametrizedTensor, ...]) -> LayerSpec:
    """Return the spec of a plain module with a plan that computes the folded tensors.

    Args:
        spec: of the plain module (:func:`without_parametrizations`).
        tensors: those to be folded.

    Raises:
        Refusal: the plan joins a folded tensor with others, or leaves one out.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    used = [entry.sources for entry in spec.entries if by_name.keys() & set(entry.sources)]
    if sorted(used) != sorted((name,) for name in by_name):
        raise Refusal(f"its {', '.join(by_name)} would have to be folded alone; write it out first")
    entries = tuple(_fold(entry, by_name.get(entry.sources[0])) for entry in spec.entries)
    return replace(spec, entries=entries)


def _fold(entry: Entry, tensor: ParametrizedTensor | None) -> Entry:
    if tensor is None:
        return entry
    return replace(entry, sources=tensor.sources, steps=(tensor.step, *entry.steps))


def _from_parametrizations(module: torch.nn.Module) -> Iterator[ParametrizedTensor]:
    for name, parts in getattr(module, "parametrizations", {}).items():
        at = f"parametrizations.{name}"
        part = parts[0] if len(parts) == 1 else None
        if type(part) is parametrizations._WeightNorm:
            pair = (f"{at}.original0", f"{at}.original1")
            yield ParametrizedTensor(name, pair, FoldWeightNorm(part.dim))
        elif type(part) is parametrizations._SpectralNorm and parts.original.ndim > 1:
            weight_and_vectors = (f"{at}.original", f"{at}.0._u", f"{at}.0._v")
            yield ParametrizedTensor(name, weight_and_vectors, FoldSpectralNorm(part.dim))
        elif type(part) is parametrizations._Orthogonal and not parts.original.is_complex():
            base = getattr(part, "base", None)
            keys = (f"{at}.original",) if base is None else (f"{at}.original", f"{at}.0.base")
            step = FoldOrthogonal(part.orthogonal_map.name, base is not None)
            yield ParametrizedTensor(name, keys, step)


def _from_hooks(module: torch.nn.Module) -> Iterator[ParametrizedTensor]:
    for hook in module._forward_pre_hooks.values():
        if type(hook) in _HOOKS:
            yield _HOOKS[type(hook)](hook)


def _from_weight_norm_hook(hook: Any) -> ParametrizedTensor:
    sources = (f"{hook.name}_g", f"{hook.name}_v")
    return ParametrizedTensor(hook.name, sources, FoldWeightNorm(hook.dim))


def _from_spectral_norm_hook(hook: Any) -> ParametrizedTensor:
    sources = (f"{hook.name}_orig", f"{hook.name}_u", f"{hook.name}_v")
    return ParametrizedTensor(hook.name, sources, FoldSpectralNorm(hook.dim))


_HOOKS: dict[type, Callable[[Any], ParametrizedTensor]] = {
    WeightNorm: _from_weight_norm_hook,
    SpectralNorm: _from_spectral_norm_hook,
}
