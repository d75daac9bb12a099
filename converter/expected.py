"""Check arguments by the annotations that say what is expected, and name what came instead.

One table says what each name of an annotation takes, and how to call it. Libraries' classes are
known by where they are defined, so that nothing is imported for a check. What no row speaks of
takes anything.
"""

from __future__ import annotations

import ast
import inspect
import numbers
import os
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from mlxport.converter.arguments import argument
from mlxport.converter.errors import OptionsError

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Expected:
    """What an argument may be.

    Attributes:
        words: what to call it in a message.
        takes: whether a value is that.
    """

    words: str
    takes: Callable[[Any], bool]


# a tensor, the positional inputs, or the one input there is, whatever that is
_INPUTS = "torch.Tensor | Sequence[Any]"


def checked_arguments(function: Callable[_P, _Result]) -> Callable[_P, _Result]:
    """Decorate a function that checks its arguments, as `check_call` does, before it runs."""
    signature = inspect.signature(function)

    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
        __tracebackhide__ = True  # as of the function itself
        check_call(signature, signature.bind(*args, **kwargs))
        return function(*args, **kwargs)

    return called


def check_call(signature: inspect.Signature, given: inspect.BoundArguments) -> None:
    """Check the arguments of a call by the annotations of what is called.

    Args:
        signature: of the function, its annotations as text.
        given: the arguments.

    Raises:
        OptionsError: some are of another kind, or nest without end; each is named, with what was
            expected.
    """
    nested = {name: why for name, v in given.arguments.items() if (why := _why_endless(v))}
    if nested:
        raise OptionsError("\n".join(f"{argument(name)}: {why}" for name, why in nested.items()))
    expected = {
        name: expectation(parameter.annotation)
        for name, parameter in signature.parameters.items()
        if parameter.annotation not in (parameter.empty, _INPUTS)
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    check_values({n: v for n, v in given.arguments.items() if n in expected}, expected)


# What walks nested arguments calls itself at each depth: PyTorch's pytree, MLX's trees of modules.
_DEEPEST = 200


def _why_endless(value: Any) -> str:
    """Return why nested lists, tuples, dicts and modules cannot be walked; empty where they can."""
    path: list[tuple[int, Iterator[Any]]] = []
    around: set[int] = set()
    known: set[int] = set()  # what stands in several places is walked in one
    items = iter((value,))
    while True:
        for item in items:
            inner = _inside(item)
            if inner is None or id(item) in known:
                continue
            if id(item) in around:
                return f"a {type(item).__name__} in it holds itself"
            if len(path) == _DEEPEST:
                return f"expected lists, dicts and modules nested to at most {_DEEPEST}, got more"
            path.append((id(item), items))
            around.add(id(item))
            items = iter(inner)
            break
        else:
            if not path:
                return ""
            done, items = path.pop()
            around.discard(done)
            known.add(done)


def _inside(value: Any) -> Sequence[Any] | None:
    """Return what a container holds, MLX's modules as the dicts they are; None of anything else."""
    if isinstance(value, dict):
        return [*value.values()]
    if isinstance(value, (list, tuple)):
        return value
    if _TORCH_MODULE in map(_place, type(value).__mro__):
        return [*value.__dict__.get("_modules", {}).values()]
    return None


def check_values(values: Mapping[str, Any], expected: Mapping[str, Expected]) -> None:
    """Check values by their names.

    Raises:
        OptionsError: some are not what is expected under their names; all of them are listed.
    """
    wrong = [
        f"{argument(name)}: expected {expected[name].words}, got {described(value)}"
        for name, value in values.items()
        if not expected[name].takes(value)
    ]
    if wrong:
        raise OptionsError("\n".join(wrong))


def described(value: Any) -> str:
    """Return what a value is, in few words."""
    kind = type(value).__name__
    if value is None or isinstance(value, type):
        return repr(value)
    plain = isinstance(value, (str, bytes, numbers.Number, list, tuple, dict, set, os.PathLike))
    return f"{kind} {reprlib.repr(value)}" if plain else kind


@cache
def expectation(annotation: str) -> Expected:
    """Return what an annotation says: names joined by ``|``, ``Sequence``, ``Mapping``."""
    return _read(ast.parse(annotation, mode="eval").body)


def _read(node: ast.expr) -> Expected:
    if isinstance(node, ast.BinOp):
        sides = [_read(node.left), _read(node.right)]
        words = list(dict.fromkeys(side.words for side in sides))
        either = Expected(" or ".join(words), lambda v: any(side.takes(v) for side in sides))
        return _without_nul(either) if _NAMES["Path"] in sides else either
    name = ast.unparse(node.value if isinstance(node, ast.Subscript) else node)
    parts = list(_parts(node))
    if name == "Literal":
        allowed = [ast.literal_eval(part) for part in parts]
        choices = ", ".join(map(repr, allowed))
        return Expected(f"one of {choices}", lambda v: isinstance(v, str) and v in allowed)
    if name == "tuple":
        return _sequence(_read(parts[0]), "a tuple", tuple)
    if name == "Sequence":
        return _sequence(_read(parts[0]))
    if name == "Mapping":
        return _mapping(*map(_read, parts))
    if name in _ALIASES:
        return expectation(_ALIASES[name])
    if name in _CLASSES:
        called, places = _CLASSES[name]
        return Expected(called, lambda v: any(_place(cls) in places for cls in type(v).__mro__))
    return _NAMES.get(name, _ANYTHING)


def _without_nul(expected: Expected) -> Expected:
    """Leave out names that no file can have."""

    def takes(value: Any) -> bool:
        path = isinstance(value, (str, os.PathLike))
        return expected.takes(value) and not (path and "\0" in str(value))

    return Expected(f"{expected.words} (without NUL)", takes)


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Subscript):
        yield from node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _sequence(item: Expected, words: str = "a list or tuple", kind: Any = Sequence) -> Expected:
    def takes(value: Any) -> bool:
        listed = isinstance(value, kind) and not isinstance(value, (str, bytes, bytearray))
        return listed and all(map(item.takes, value))

    of = "" if item is _ANYTHING else f" (each {item.words})"
    return Expected(f"{words}{of}", takes)


def _mapping(key: Expected, value: Expected) -> Expected:
    def takes(given: Any) -> bool:
        items = given.items() if isinstance(given, Mapping) else [(None, None)]
        return isinstance(given, Mapping) and all(key.takes(k) and value.takes(v) for k, v in items)

    to = "" if value is _ANYTHING else f" to {value.words}"
    return Expected(f"a dict (from {key.words}{to})", takes)


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def _is_path(value: Any) -> bool:
    return isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)


def _may_be_a_model(value: Any) -> bool:
    """Leave classes, functions and state dicts to what knows better what to say of them."""
    places = set(map(_place, type(value).__mro__))
    return bool(places & _MODELS) or isinstance(value, (type, Mapping)) or inspect.isroutine(value)


_TORCH_MODULE = "torch.nn.modules.module.Module"
_MODELS = {
    _TORCH_MODULE,
    "torch.export.exported_program.ExportedProgram",
    "torch.ScriptFunction",
}


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


_ANYTHING = Expected("anything", lambda value: True)
_NAMES = {
    "None": Expected("None", lambda value: value is None),
    "bool": Expected("True or False", _is_truth),
    "str": Expected("text", lambda value: isinstance(value, str)),
    "Path": Expected("a path", _is_path),
    "int": Expected("a whole number", _is_whole),
    "float": Expected("a number", _is_real),
    "re.Pattern": Expected("a compiled regex", lambda value: isinstance(value, re.Pattern)),
    "torch.nn.Module": Expected("a torch.nn.Module", _may_be_a_model),
}
_ALIASES = {
    "Patterns": "Mapping[str | re.Pattern, str]",
    "ModuleNames": "Mapping[str | re.Pattern, str | None]",
    "Dropped": "str | re.Pattern | Sequence[str | re.Pattern]",
    "DynamicAxes": "int | Sequence[int] | Mapping[str, int | Sequence[int]]",
    "OrderSpec": "str | Sequence[int]",
}
_CLASSES = {
    "torch.Tensor": ("a torch.Tensor", {"torch.Tensor"}),
    "mlx.nn.Module": ("an mlx.nn.Module", {"mlx.nn.layers.base.Module"}),
    "Conversion": ("a Conversion", {"mlxport.converter.plan.record.Conversion"}),
    "WeightPlan": ("a WeightPlan", {"mlxport.converter.plan.weight_plan.WeightPlan"}),
}
