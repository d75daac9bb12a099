"""Register rules and handlers of users, in the registries that hold those of mlxport.

``docs/extending.md`` shows how. mlx is imported with this module: ``prepare`` comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

import torch
from torch._library.custom_ops import CustomOpDef

from mlxport.converter.errors import OptionsError
from mlxport.converter.expected import checked_arguments, described
from mlxport.converter.graph import ops
from mlxport.converter.graph.ir.handler_context import Handler
from mlxport.converter.rules import registry
from mlxport.converter.rules.registry import Build, LayerSpec, Rule

_Rule = TypeVar("_Rule", bound=Build)
_Handler = TypeVar("_Handler", bound=Handler)


@checked_arguments
def register_rule(
    *classes: type[torch.nn.Module],
    target: str = "",
    restrictions: str = "",
    override: bool = False,
) -> Callable[[_Rule], _Rule]:
    """Register a function as the rule of torch classes: what stands for them in MLX.

    The function takes a module and returns a ``LayerSpec``, or raises ``Refusal`` where it does
    not serve this configuration (a whole model is then lowered op by op there). A registered class
    stands as one layer whatever its ``forward`` does: its author answers for that, and parity
    judges it.

    Args:
        *classes: the torch classes; subclasses that override nothing that computes are served too.
        target: what stands for them, for ``mlxport layers``; the function's name if not given.
        restrictions: what is not supported, for ``mlxport layers``.
        override: replace the rule a class has already, mlxport's own included.

    Raises:
        OptionsError: something is no class of modules, or has a rule already.
    """
    given: tuple[Any, ...] = classes
    for cls in given:
        if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module)):
            raise OptionsError(f"register_rule takes classes of torch.nn.Module, got {cls!r}")
        if cls in registry.RULES and not override:
            raise OptionsError(
                f"{cls.__name__} has a rule already, in {registry.RULES[cls].build.__module__}. "
                "To replace it, pass override=True."
            )
    if not classes:
        raise OptionsError("register_rule needs a class: write @mlxport.register_rule(MyLayer)")

    def register(build: _Rule) -> _Rule:
        _check_callable("register_rule", build)
        for cls in classes:
            named = target or f"{build.__module__}.{build.__name__}"
            rule = Rule(cls, _checked(build), frozenset(), True, named, restrictions, trusted=True)
            registry.add_rule(rule, override=override)
        return build

    return register


@checked_arguments
def register_op(
    *operators: Any, restrictions: str = "", override: bool = False
) -> Callable[[_Handler], _Handler]:
    """Register a function as the handler of ops: the MLX expression that computes them.

    The function is called with the lowering context and the arguments of the call, values in place
    of tensors, and returns the value the op gives; ``docs/extending.md`` describes the context.

    Args:
        *operators: ``torch.ops.mylib.myop`` (all its overloads), one overload of it, what
            ``torch.library.custom_op`` returned, or a name (``"mylib.myop.default"``).
        restrictions: what is not supported, for ``mlxport layers``.
        override: replace the handler an op has already, mlxport's own included.

    Raises:
        OptionsError: something is no operator, or has a handler already.
    """
    names = [name for operator in operators for name in _names(operator)]
    taken = [name for name in names if name in ops.registry.OPS]
    if taken and not override:
        raise OptionsError(
            f"{', '.join(taken)}: there is a handler already. To replace it, pass override=True."
        )
    if not names:
        raise OptionsError("register_op needs an op: write @mlxport.register_op(torch.ops.a.b)")

    def register(handler: _Handler) -> _Handler:
        _check_callable("register_op", handler)
        for name in names:
            ops.registry.register_handler(
                ops.registry.Op(name, handler, restrictions), override=override
            )
        return handler

    return register


def _check_callable(name: str, function: Any) -> None:
    if not callable(function):
        raise OptionsError(f"{name} registers a function, got {described(function)}")


def _checked(build: Build) -> Build:
    @wraps(build)
    def answer(module: Any) -> LayerSpec:
        spec = build(module)
        if not isinstance(spec, LayerSpec):
            raise OptionsError(
                f"the rule {build.__name__} of {type(module).__name__} gave {spec!r}; it has to "
                "return a mlxport.LayerSpec, or raise mlxport.Refusal"
            )
        return spec

    return answer


def _names(operator: Any) -> Iterator[str]:
    if isinstance(operator, str):
        yield operator
    elif isinstance(operator, CustomOpDef):
        yield from _names(operator._opoverload)
    elif isinstance(operator, torch._ops.OpOverload):
        yield str(operator)
    elif isinstance(operator, torch._ops.OpOverloadPacket):
        yield from (str(getattr(operator, overload)) for overload in operator.overloads())
    else:
        raise OptionsError(
            f"register_op takes operators such as torch.ops.mylib.myop, got {operator!r}"
        )
