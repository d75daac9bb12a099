"""The registry of layer rules: for each torch module class, how to build its MLX layer.

A rule is a function that takes one torch module and returns a ``LayerSpec``: the MLX class and its
arguments, the plan of the tensors, and the axis order of input and output. For a configuration
that the MLX layer cannot compute it raises ``Refusal`` with the reason.

* ``@rule(torch.nn.Linear, ops=[...], target="mlx.nn.Linear")`` registers a rule in ``RULES``.
* ``@library_rule("timm.layers.norm.LayerNorm2d", ...)`` registers one for a class of another
  library in ``LIBRARY_RULES``, by its qualified name: the library itself is never imported.
* ``rule_for(module)`` walks the MRO of the module's class and returns the first rule found. It
  gives up at a class that overrides anything which computes, such as ``forward``.
* ``spec_for(module)`` (``spec.py``) calls the rule and also folds parametrizations; this is what
  ``mlxport.convert_layer`` uses. In a whole model a module becomes a layer only if its captured
  graph holds just the ``ops`` of its rule; any other module is lowered op by op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import wraps
from typing import Any, TypeAlias, TypeVar

import torch

from mlxport.converter.errors import ConversionError
from mlxport.converter.expected import Expected, check_values, expectation
from mlxport.converter.plan.weight_plan import Entry


class Axes(Enum):
    """The axis order of a layer's input and output."""

    ANY = "any"  # pointwise: the output has the order of the input
    CHANNELS_LAST = "channels_last"  # (N, C, *S) stored as (N, *S, C)
    FEATURES_LAST = "features_last"  # the last PyTorch axis is stored last, the others in any order
    LOGICAL = "logical"  # the order of PyTorch


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
        axes: the axis order of input and output.
        rank: number of spatial axes where the input may come without a batch axis (``(C, *S)``),
            None where axis 1 is always the channel axis.
        results: names of the outputs, nested as the layer returns them: the ATen op's results in
            order.
        standalone: what ``convert_layer`` builds instead of ``target``, with the same arguments and
            parameters. Set where ``target`` lacks a feature of torch's layer that a converted model
            does not need: input without a batch axis, or no gradient for ``padding_idx``.
        by_ndim: number of axes of the input -> what whole models build for it instead of
            ``target``: a plainer layer that takes no others.
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
    by_ndim: Mapping[int, Callable[..., Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_values({name: getattr(self, name) for name in _EXPECTED}, _EXPECTED)


def _are_names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, tuple) and all(map(_are_names, value)))


_EXPECTED = {
    "target": Expected("a class or function that makes the layer", callable),
    "args": Expected("a tuple", lambda value: isinstance(value, tuple)),
    "kwargs": expectation("Mapping[str, Any]"),
    "entries": Expected(
        "a tuple of mlxport.Entry",
        lambda v: isinstance(v, tuple) and all(isinstance(one, Entry) for one in v),
    ),
    "ignored": expectation("Mapping[str, str]"),
    "axes": Expected("one of mlxport.Axes", lambda value: isinstance(value, Axes)),
    "rank": expectation("int | None"),
    "results": Expected("a name, or names in tuples", _are_names),
    "standalone": Expected("a class, a function or None", lambda v: v is None or callable(v)),
}


class Refusal(ConversionError):
    """A rule cannot serve this configuration; the message says why."""


Build = Callable[[Any], LayerSpec]
_BuildT = TypeVar("_BuildT", bound=Build)


@dataclass(frozen=True)
class Rule:
    """A rule with its entry in the support table.

    Attributes:
        source: the torch class, or its qualified name for a class of another library.
        build: returns the ``LayerSpec`` of a module, or raises ``Refusal``.
        ops: names of the ATen ops this layer is captured as (training IR); a module whose captured
            graph holds anything else computes something else and is lowered op by op.
        leaf: False where whole models are always lowered op by op: because that gives better code
            (an axis argument, say), or because the rule is for ``convert_layer`` alone.
        target: the MLX counterpart's name, for the support table.
        restrictions: what is not supported, for the support table; empty when nothing.
        auxiliary_ops: names of ops its forward runs besides (initial states it creates, results it
            unpacks); where there are any, its call is read off the captured graph.
        side_effect_ops: names of ops its forward runs that the MLX layer does without: for a side
            effect, or to add a batch axis and drop it; other modules must not read its tensors
            then.
        idiom: recognised by what its calls compute, not by its class: what else the code of the
            class does, such as reading sizes, is not known.
        trusted: registered by the user: modules of the class become one layer whatever their
            captured graph holds.
    """

    source: type[torch.nn.Module] | str
    build: Build
    ops: frozenset[str]
    leaf: bool
    target: str
    restrictions: str
    auxiliary_ops: frozenset[str] = frozenset()
    trusted: bool = False
    side_effect_ops: frozenset[str] = frozenset()
    idiom: bool = False

    @property
    def name(self) -> str:
        """Name of the torch class, without its module."""
        source = self.source if isinstance(self.source, str) else self.source.__name__
        return source.rpartition(".")[2]


RULES: dict[type[torch.nn.Module], Rule] = {}
LIBRARY_RULES: dict[str, Rule] = {}  # by the qualified name of the class

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

    Args:
        *sources: the classes.
        ops: as of :class:`Rule`.
        auxiliary_ops: as of :class:`Rule`.
        side_effect_ops: as of :class:`Rule`.
        target: the MLX counterpart's name, for the support table.
        restrictions: what is not supported, for the support table.
        leaf: as of :class:`Rule`.

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


def library_rule(
    *sources: str, target: str, restrictions: str = ""
) -> Callable[[_BuildT], _BuildT]:
    """Register a function as the rule of classes of a library that mlxport does not import.

    The rule serves ``mlxport.convert_layer``; whole models go by what a class computes. A class
    whose attributes are not those the rule reads, as in another version of the library, is refused.

    Args:
        *sources: qualified names of the classes, ``"package.module.Class"``.
        target: the MLX counterpart's name, for the support table.
        restrictions: what is not supported, for the support table.

    Raises:
        ValueError: a class has a rule already.
    """

    def register(build: _BuildT) -> _BuildT:
        @wraps(build)
        def checked(module: Any) -> LayerSpec:
            try:
                return build(module)
            except AttributeError as error:
                reason = f"its class is not the one this rule was written for: {error}"
                raise Refusal(reason) from error

        for source in sources:
            add_rule(Rule(source, checked, frozenset(), False, target, restrictions))
        return build

    return register


def add_rule(new: Rule, *, override: bool = False) -> None:
    """Add a rule to the registry.

    Raises:
        ValueError: its class has a rule already, and ``override`` is not set.
    """
    rules: dict[Any, Rule] = LIBRARY_RULES if isinstance(new.source, str) else RULES
    if new.source in rules and not override:
        raise ValueError(
            f"{new.name} already has a rule: {rules[new.source].build}. To replace it, "
            "pass override=True."
        )
    rules[new.source] = new


def rule_for(module: torch.nn.Module) -> Rule | None:
    """Return the rule that serves a module, or None.

    A subclass is served by the rule of its base only where it overrides nothing that computes: a
    subclass with another ``forward`` is another layer. A rule registered for the class itself comes
    before one for its qualified name.
    """
    for cls in type(module).__mro__:
        if cls in RULES:
            return RULES[cls]
        if (name := qualified_name(cls)) in LIBRARY_RULES:
            return LIBRARY_RULES[name]
        if any(_computes(value) for name, value in vars(cls).items() if name not in _HARMLESS):
            return None
    return None


def qualified_name(cls: type) -> str:
    """Return the full name of a class, as :func:`library_rule` takes it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def overridden(module: torch.nn.Module) -> str:
    """Return what of a base class with a rule a subclass overrides, in one line; empty if none."""
    changed: list[str] = []
    for cls in type(module).__mro__:
        if cls in RULES or qualified_name(cls) in LIBRARY_RULES:
            listed = ", ".join(dict.fromkeys(changed))
            return f"{type(module).__name__} overrides {listed} of {cls.__name__}" if listed else ""
        defined = ((name, value) for name, value in vars(cls).items() if name not in _HARMLESS)
        changed += [name for name, value in defined if _computes(value)]
    return ""


def _computes(attribute: object) -> bool:
    # a property can stand for a parameter (torch's parametrisations do that)
    return callable(attribute) or isinstance(attribute, (property, classmethod, staticmethod))


def compacted(value: Any) -> Any:
    """Return an argument in its shortest form: a tuple of equal numbers as one number."""
    if isinstance(value, (tuple, list)):
        numbers = tuple(value)
        return numbers[0] if numbers and len(set(numbers)) == 1 else numbers
    return value


def changed(defaults: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """Return the keyword arguments that differ from their defaults, as literals."""
    return {k: compacted(v) for k, v in values.items() if compacted(v) != defaults[k]}
