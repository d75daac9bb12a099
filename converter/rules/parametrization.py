"""Parametrised modules: tensors that PyTorch computes anew from others before each forward pass.

A module whose weight norm or spectral norm is folded computes what its plain class does, so the
class's own rule answers, and only the sources of its plan change. Both of PyTorch's forms are
known: parametrisations (``parametrizations.weight.original0``) and the hooks that came before them
(``weight_g``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from mlxport.converter.plan.fold_steps import FoldOrthogonal, FoldSpectralNorm, FoldWeightNorm
from mlxport.converter.plan.steps import Step
from mlxport.converter.plan.weight_plan import Entry
from mlxport.converter.rules.registry import LayerSpec, Refusal, Rule

_TRAINING = "spectral norm takes another step at each forward pass in training; call eval() first"


@dataclass(frozen=True)
class Fold:
    """How one tensor of a module comes from those in its state dict.

    Attributes:
        name: the tensor (``"weight"``).
        sources: its keys in the state dict, in the order the step takes them.
        step: what makes the tensor.
    """

    name: str
    sources: tuple[str, ...]
    step: Step

    @property
    def alike(self) -> str:
        """The key of the tensor that has the shape and dtype of what is made."""
        return self.sources[1 if isinstance(self.step, FoldWeightNorm) else 0]


def folds_of(module: torch.nn.Module) -> tuple[Fold, ...]:
    """Return how the tensors are made that stand for no parameter; none for a plain module."""
    return (*_parametrised(module), *_hooked(module))


def unfoldable(module: torch.nn.Module) -> Iterator[str]:
    """Say which parametrisations and hooks of a module do something else, one line each."""
    folded = {fold.name for fold in _parametrised(module)}
    for name, made in getattr(module, "parametrizations", {}).items():
        if name not in folded:
            kinds = " after ".join(type(part).__name__ for part in reversed(made))
            yield (
                f"{name} is parametrised ({kinds}); torch.nn.utils.parametrize."
                f"remove_parametrizations(module, {name!r}) writes the value out"
            )
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        for hook in getattr(module, kind).values():
            if type(hook) not in _HOOKS:
                name = getattr(hook, "__qualname__", type(hook).__name__)
                yield f"a forward hook is registered on it ({name})"
    if module.training and any(isinstance(f.step, FoldSpectralNorm) for f in folds_of(module)):
        yield _TRAINING


def plain(module: torch.nn.Module, folds: tuple[Fold, ...]) -> torch.nn.Module:
    """Return a module of the plain class that shares all tensors but the folded ones.

    In the place of those stand tensors of the same shape and dtype.
    """
    cls: Any = parametrize.type_before_parametrizations(module)
    twin: torch.nn.Module = cls.__new__(cls)
    for name, value in vars(module).items():
        twin.__dict__[name] = value.copy() if isinstance(value, dict) else value
    gone = {key for fold in folds for key in fold.sources}
    for kind in ("_parameters", "_buffers"):
        held = getattr(twin, kind)
        twin.__dict__[kind] = {key: value for key, value in held.items() if key not in gone}
    twin._modules.pop("parametrizations", None)
    hooks = twin._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if type(hook) in _HOOKS]:
        del hooks[key]
    state = module.state_dict(keep_vars=True)
    for fold in folds:
        twin.__dict__.pop(fold.name, None)
        value = torch.nn.Parameter(state[fold.alike].detach(), requires_grad=False)
        twin._parameters[fold.name] = value
    return twin


def spec_by(rule: Rule, module: torch.nn.Module) -> LayerSpec:
    """Return what a rule builds for a module, whose tensors may have to be folded.

    Raises:
        Refusal: the rule does not serve it.
    """
    folds = folds_of(module)
    return folded(rule.build(plain(module, folds)), folds) if folds else rule.build(module)


def folded(spec: LayerSpec, folds: tuple[Fold, ...]) -> LayerSpec:
    """Return the spec of a plain module with its plan's sources replaced.

    Raises:
        Refusal: the plan makes something else of a folded tensor than one target.
    """
    by_name = {fold.name: fold for fold in folds}
    used = [entry.sources for entry in spec.entries if by_name.keys() & set(entry.sources)]
    if sorted(used) != sorted((name,) for name in by_name):
        raise Refusal(f"its {', '.join(by_name)} would have to be folded alone; write it out first")
    entries = tuple(_folded(entry, by_name.get(entry.sources[0])) for entry in spec.entries)
    return replace(spec, entries=entries)


def _folded(entry: Entry, fold: Fold | None) -> Entry:
    if fold is None:
        return entry
    return replace(entry, sources=fold.sources, steps=(fold.step, *entry.steps))


def _parametrised(module: torch.nn.Module) -> Iterator[Fold]:
    for name, made in getattr(module, "parametrizations", {}).items():
        at = f"parametrizations.{name}"
        part = made[0] if len(made) == 1 else None
        if type(part) is parametrizations._WeightNorm:
            pair = (f"{at}.original0", f"{at}.original1")
            yield Fold(name, pair, FoldWeightNorm(part.dim))
        elif type(part) is parametrizations._SpectralNorm and made.original.ndim > 1:
            weight_and_vectors = (f"{at}.original", f"{at}.0._u", f"{at}.0._v")
            yield Fold(name, weight_and_vectors, FoldSpectralNorm(part.dim))
        elif type(part) is parametrizations._Orthogonal and not made.original.is_complex():
            base = getattr(part, "base", None)
            keys = (f"{at}.original",) if base is None else (f"{at}.original", f"{at}.0.base")
            step = FoldOrthogonal(part.orthogonal_map.name, base is not None)
            yield Fold(name, keys, step)


def _hooked(module: torch.nn.Module) -> Iterator[Fold]:
    for hook in module._forward_pre_hooks.values():
        if type(hook) in _HOOKS:
            yield _HOOKS[type(hook)](hook)


def _of_weight_norm(hook: Any) -> Fold:
    sources = (f"{hook.name}_g", f"{hook.name}_v")
    return Fold(hook.name, sources, FoldWeightNorm(hook.dim))


def _of_spectral_norm(hook: Any) -> Fold:
    sources = (f"{hook.name}_orig", f"{hook.name}_u", f"{hook.name}_v")
    return Fold(hook.name, sources, FoldSpectralNorm(hook.dim))


_HOOKS: dict[type, Any] = {WeightNorm: _of_weight_norm, SpectralNorm: _of_spectral_norm}
