"""Find the rule of one torch module and return its spec, parametrizations folded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.nn.modules.lazy import LazyModuleMixin

from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.parametrization import (
    fold_into_plan,
    folding_obstacles,
    parametrized_tensors,
    without_parametrizations,
)
from mlxport.converter.rules.plain_numbers import with_plain_numbers
from mlxport.converter.rules.refusals import why_no_rule
from mlxport.converter.rules.registry import LayerSpec, Refusal, rule_for


def spec_for(module: torch.nn.Module) -> LayerSpec:
    """Return the spec of the MLX layer for a torch module.

    Raises:
        UnsupportedError: the module has no rule, its rule refuses this configuration, or methods,
            hooks or parametrizations of it change what its class computes.
    """
    name = type(module).__name__
    if changes := list(_alterations(module)):
        raise UnsupportedError.listing(
            f"{name} does more than its class stands for:",
            changes,
            "Undo this and convert again, or convert the whole model, which reads what it does.",
        )
    if tensors := parametrized_tensors(module):
        plain = without_parametrizations(module, tensors)
        return _unless_refused(module, lambda: fold_into_plan(spec_for(plain), tensors))
    rule = rule_for(module)
    if rule is None:
        raise UnsupportedError(
            f"{name} ({type(module).__module__}) cannot be converted as a layer: "
            f"{why_no_rule(module)}. `mlxport layers` lists the classes that can."
        )
    return _unless_refused(module, partial(rule.build, with_plain_numbers(module)))


def _unless_refused(module: torch.nn.Module, build: Callable[[], LayerSpec]) -> LayerSpec:
    try:
        return build()
    except Refusal as refusal:
        name = type(module).__name__
        raise UnsupportedError(f"{name}: {refusal} (module: {module})") from refusal


def _alterations(module: torch.nn.Module) -> Iterator[str]:
    """Yield what changes the computation of a module after its construction, one line each."""
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        return  # its rule refuses with advice
    for name, value in vars(module).items():
        if callable(value) and callable(getattr(type(module), name, None)):
            yield f"its method {name} was replaced on the instance"
    yield from folding_obstacles(module)
