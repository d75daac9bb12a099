"""Run an MLX model and report every call of its submodules, with its results.

Knows nothing of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from traceback import walk_tb
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxport.converter.errors import ConversionError, ParityError


@dataclass(frozen=True, eq=False)
class TracedCall:
    """One call of one module.

    The arrays are those of the model, which its later code may write into (``y[0] = 1``): read them
    when the call is reported.

    Attributes:
        target: the module's attribute path; of several, the one first asked for.
        number: how many calls of that module came before.
        module: the module itself.
        args: the positional arguments.
        kwargs: the keyword arguments.
        outputs: arrays of its result, flattened.
    """

    target: str
    number: int
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[mx.array, ...]


class ModelRunError(ParityError):
    """The MLX model raises where it is run, as a device may that lacks a kernel."""


Observe = Callable[[TracedCall], None]


def trace(
    model: nn.Module,
    inputs: Sequence[Any],
    targets: Sequence[str],
    observe: Observe,
    *,
    named: Mapping[str, Any] | None = None,
    evaluate: bool = True,
) -> Any:
    """Run a model and report every call of the modules at the given paths, when it returns.

    The model computes what it would have computed untraced; its modules are as before afterwards,
    also when it fails.

    Args:
        model: the model.
        inputs: its positional arguments: arrays, containers of them.
        targets: attribute paths (``"down.0.conv"``): digits index lists, keys dicts, names
            modules; ``""`` is the model itself.
        observe: called with every call. Those of a module come before that of the one around it.
        named: its keyword arguments.
        evaluate: evaluate every result as it comes (*in place*), so that each call starts from
            values; otherwise the graph stays lazy.

    Returns:
        The model's result, evaluated.

    Raises:
        ParityError: paths that lead to no module, or the model fails.
    """
    names: dict[int, str] = {}
    modules: dict[str, nn.Module] = {}
    for target, module in modules_at(model, targets).items():
        if id(module) not in names:
            names[id(module)] = target
            modules[target] = module
    with _reporting(modules, observe, evaluate):
        return run_model(model, inputs, named)


def run_model(
    model: nn.Module,
    inputs: Sequence[Any],
    named: Mapping[str, Any] | None = None,
    *,
    compiled: bool = False,
    stateful: bool = False,
) -> Any:
    """Run a model as one lazy graph (*whole*): nothing is evaluated before its results are.

    Args:
        model: the MLX model.
        inputs: its positional inputs.
        named: its keyword inputs.
        compiled: let ``mx.compile`` transform the graph first (*compiled*).
        stateful: whether a call writes arrays of the model, which a compiled graph has to be told.

    Raises:
        ParityError: the model fails.
    """
    try:
        call: Any = model
        if compiled:
            kept: dict[str, Any] = dict.fromkeys(("inputs", "outputs"), model.state)
            call = mx.compile(model, **(kept if stateful else {}))
        result = call(*inputs, **(named or {}))
        mx.eval(tuple(arrays(result)))
    except ConversionError:
        raise
    except Exception as error:  # the model's code, whatever it raises
        given = arrays((inputs, dict(named or {})))
        shapes = ", ".join(f"{mlx_dtype_name(x)} {tuple(x.shape)}" for x in given)
        raise ModelRunError(
            f"the MLX model {type(model).__name__} fails on inputs {shapes}"
            f"{_place_of(error, model)}: {type(error).__name__}: {error}"
        ) from error
    return result


def _place_of(error: Exception, model: nn.Module) -> str:
    """Say in which module, and at which line of model.py, an error arose; where that is known.

    What a layer computes may be computed with what comes after it: the error is at this place, or
    before it.
    """
    names = {id(module): name for name, module in model.named_modules()}
    layer, line = "", 0
    for frame, number in walk_tb(error.__traceback__):
        layer = names.get(id(frame.f_locals.get("self")), "") or layer
        if PurePath(frame.f_code.co_filename).name == "model.py":
            line = number
    found = [f"in {layer}"] * bool(layer) + [f"at line {line} of model.py"] * bool(line)
    return f", {' '.join(found)}" if found else ""


def modules_at(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """Return the module at each attribute path.

    Raises:
        ParityError: some paths lead to no module; all of them are listed.
    """
    modules: dict[str, nn.Module] = {}
    problems = []
    for target in dict.fromkeys(targets):
        found = attribute_at(model, target)
        if isinstance(found, nn.Module):
            modules[target] = found
        else:
            problems.append(f"{target}: {'nothing' if found is None else type(found).__name__}")
    if problems:
        raise ParityError.listing(
            f"{type(model).__name__} has no modules at these paths:",
            problems,
            "Is this the model that was made together with conversion.json?",
        )
    return modules


def check_mode(model: nn.Module) -> None:
    """Refuse a model that is in training mode, or a part of which is.

    Raises:
        ParityError: it is.
    """
    training = [name or "the model" for name, m in model.named_modules() if m.training]
    if training:
        raise ParityError(
            f"in training mode, where layers compute something else: {', '.join(training[:5])} "
            f"({len(training)} in all). Call model.eval() first."
        )


def arrays(value: Any) -> Iterator[mx.array]:
    """Yield the arrays of nested tuples, lists and dicts, in PyTorch's pytree order."""
    for leaf in leaves(value):
        if isinstance(leaf, mx.array):
            yield leaf


def leaves(value: Any) -> Iterator[Any]:
    """Yield all that is no tuple, list or dict, in PyTorch's pytree order."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        yield from leaves(tuple(value.values()))
    else:
        yield value


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Return nested tuples, lists and dicts with every leaf replaced, in the order of `leaves`."""
    if isinstance(value, dict):
        return {key: mapped(function, item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [mapped(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return function(value)


def mlx_dtype_name(array: mx.array) -> str:
    """Return the name of an array's dtype, which is also the name of torch's."""
    return str(array.dtype).rpartition(".")[2]


def attribute_at(model: Any, target: str) -> Any:
    """Return what stands at an attribute path of a model; None where nothing does."""
    found = model
    for segment in target.split(".") if target else ():
        if isinstance(found, nn.Module):  # a dict too, hence first
            found = getattr(found, segment, None)
        elif isinstance(found, dict):
            found = found.get(segment)
        elif isinstance(found, (list, tuple)) and segment.isdecimal():
            found = found[int(segment)] if int(segment) < len(found) else None
        else:
            return None
    return found


@contextmanager
def _reporting(modules: dict[str, nn.Module], observe: Observe, evaluate: bool) -> Iterator[None]:
    """Give modules a class that reports its calls: MLX looks ``__call__`` up on the class."""
    classes = {target: type(module) for target, module in modules.items()}
    try:
        for target, module in modules.items():
            reporting = _reporting_class(classes[target], target, observe, evaluate)
            object.__setattr__(module, "__class__", reporting)
        yield
    finally:
        for target, module in modules.items():
            object.__setattr__(module, "__class__", classes[target])


def _reporting_class(cls: type[nn.Module], target: str, observe: Observe, evaluate: bool) -> type:
    number = 0

    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        nonlocal number
        result = cls.__call__(self, *args, **kwargs)
        outputs = tuple(arrays(result))
        if evaluate:
            mx.eval(outputs)
        observe(TracedCall(target, number, self, args, kwargs, outputs))
        number += 1
        return result

    return type(cls.__name__, (cls,), {"__call__": __call__, "__module__": cls.__module__})
