"""The registry of rules: what stands in MLX for a torch.nn class.

A rule looks at one torch module and answers with a ``LayerSpec``: which MLX class to build with
which arguments, what happens to its tensors, and in which axis order it wants its input. The same
answer serves ``convert_layer``, whole models and weight-only plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias, TypeVar

import torch

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.weight_plan import Entry


class Axes(Enum):
    """The axis order a layer wants of its input and gives its output."""

    ANY = "any"  # pointwise: whatever order comes, goes
    CHANNELS_LAST = "channels_last"  # (N, C, *S) stored as (N, *S, C)
    FEATURES_LAST = "features_last"  # the last PyTorch axis is stored last
    LOGICAL = "logical"  # PyTorch's own order


ResultNames: TypeAlias = "str | tuple[ResultNames, ...]"


@dataclass(frozen=True)
class LayerSpec:
    """What to build in MLX for one torch module.

    Attributes:
        target: a class of ``mlx.nn`` or ``mlxport.layers``.
        args: positional arguments, literals only (they are written into ``model.py``).
        kwargs: keyword arguments, literals only; leave out those equal to the default.
        entries: the plan of its tensors, names relative to the module.
        ignored: state dict key relative to the module -> why it has no target.
        axes: the order the layer wants and gives.
        rank: number of spatial axes where the input may come without a batch axis (``(C, *S)``),
            None where axis 1 is always the channel axis.
        results: what the layer gives, as a nesting of names: the ATen op's results in order.
        standalone: what ``convert_layer`` builds in place of ``target``, with the same arguments
            and parameters: where that lacks of torch's layer what a converted model can do
            without, such as input without a batch axis, or no gradient for ``padding_idx``.
    """

    target: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    axes: Axes = Axes.CHANNELS_LAST
    rank: int | None = None
    results: ResultNames = "y"
    standalone: Callable[..., Any] | None = None


class Refusal(ConversionError):
    """A rule cannot serve this configuration; the message says why."""


Build = Callable[[Any], LayerSpec]
_BuildT = TypeVar("_BuildT", bound=Build)


@dataclass(frozen=True)
class Rule:
    """A rule as it stands in the registry and in the support table.

    Attributes:
        source: the torch.nn class.
        build: makes the ``LayerSpec`` of a module, or raises ``Refusal``.
        ops: names of the ATen ops this layer is captured as (training IR); a module whose captured
            graph holds anything else does more than its class stands for and is lowered op by op.
        leaf: False where whole models are better lowered op by op (an axis argument, say).
        target: the MLX counterpart's name, for the support table.
        restrictions: what is not supported, for the support table; empty when nothing.
        auxiliary_ops: names of ops its forward runs besides (initial states it creates, results it
            unpacks); where there are any, its call is read off the captured graph.
        side_effect_ops: names of ops its forward runs for a side effect that the MLX layer does not
            need; other modules must not read its tensors then.
        trusted: registered by the user: modules of the class become one layer whatever their
            captured graph holds.
    """

    source: type[torch.nn.Module]
    build: Build
    ops: frozenset[str]
    leaf: bool
    target: str
    restrictions: str
    auxiliary_ops: frozenset[str] = frozenset()
    trusted: bool = False
    side_effect_ops: frozenset[str] = frozenset()


RULES: dict[type[torch.nn.Module], Rule] = {}

# Methods a subclass may override without changing what forward computes.
_HARMLESS = frozenset(
    {
        "__init__",
        "__repr__",
        "extra_repr",
        "reset_parameters",
        "__module__",
        "__doc__",
        "__qualname__",
        "__annotations__",
        "__parameters__",
        "__firstlineno__",
        "__static_attributes__",
        "__orig_bases__",
        "__annotate__",
        "__annotations_cache__",
    }
)


def rule(
    *sources: type[torch.nn.Module],
    ops: Iterable[str] = (),
    auxiliary_ops: Iterable[str] = (),
    side_effect_ops: Iterable[str] = (),
    target: str,
    restrictions: str = "",
    leaf: bool = True,
) -> Callable[[_BuildT], _BuildT]:
    """Register a function as the rule of one or more torch.nn classes.

    Raises:
        ValueError: a class has a rule already.
    """

    def register(build: _BuildT) -> _BuildT:
        for source in sources:
            add_rule(
                Rule(
                    source,
                    build,
                    frozenset(ops),
                    leaf,
                    target,
                    restrictions,
                    auxiliary_ops=frozenset(auxiliary_ops),
                    side_effect_ops=frozenset(side_effect_ops),
                )
            )
        return build

    return register


def add_rule(new: Rule, *, override: bool = False) -> None:
    """Enter a rule in the registry.

    Raises:
        ValueError: its class has a rule already, and ``override`` is not set.
    """
    if new.source in RULES and not override:
        raise ValueError(
            f"{new.source.__name__} already has a rule: {RULES[new.source].build}. To replace it, "
            "pass override=True."
        )
    RULES[new.source] = new


def rule_for(module: torch.nn.Module) -> Rule | None:
    """Return the rule that stands for a module, or None.

    A subclass is served by its base's rule only where it overrides nothing that computes: a
    subclass with a ``forward`` of its own is another layer.
    """
    for cls in type(module).__mro__:
        if cls in RULES:
            return RULES[cls]
        if any(_computes(value) for name, value in vars(cls).items() if name not in _HARMLESS):
            return None
    return None


def _computes(attribute: object) -> bool:
    # a property can stand for a parameter (torch's parametrisations do that)
    return callable(attribute) or isinstance(attribute, (property, classmethod, staticmethod))


def compacted(value: Any) -> Any:
    """Return an argument as it should stand in source: a tuple of equal numbers as one number."""
    if isinstance(value, (tuple, list)):
        numbers = tuple(value)
        return numbers[0] if numbers and len(set(numbers)) == 1 else numbers
    return value


def changed(defaults: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """Return the keyword arguments that differ from their defaults, as literals."""
    return {k: compacted(v) for k, v in values.items() if compacted(v) != defaults[k]}
