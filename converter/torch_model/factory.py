"""Import what a user names on the command line: a model, ``pkg.mod:factory``, and extensions.

Needs torch only to make a torch model.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxport.converter.arguments import argument
from mlxport.converter.errors import OptionsError
from mlxport.converter.timings import stage

if TYPE_CHECKING:
    import mlx.nn
    import torch


@dataclass(frozen=True)
class Factory:
    """What builds a torch model that nobody else holds.

    Attributes:
        name: what to call the model, for messages and the record.
        build: returns it, anew each time.
    """

    name: str
    build: Callable[[], torch.nn.Module]


@stage("model")
def make_model(name: str, arguments: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """Import ``pkg.mod:factory`` and return the torch model it gives.

    Args:
        name: an importable module and, after the colon, a class or function that gives a
            ``torch.nn.Module`` (or such a module itself). The current folder is on the path.
        arguments: keyword arguments for the factory.

    Raises:
        OptionsError: it does not import, or gives something else.
    """
    import torch

    made: torch.nn.Module = _make("model", name, arguments or {}, torch.nn.Module)
    return made


def is_shared(name: str, model: torch.nn.Module) -> bool:
    """Tell whether what `make_model` gave stands under that name itself, for all who import it."""
    module, _, attribute = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found is model


def make_target(name: str, arguments: Mapping[str, Any] | None = None) -> mlx.nn.Module:
    """Import ``pkg.mod:factory`` and return the MLX model it gives; as `make_model`."""
    import mlx.nn

    made: mlx.nn.Module = _make("target", name, arguments or {}, mlx.nn.Module)
    return made


def _make(keyword: str, name: str, arguments: Mapping[str, Any], cls: type[Any]) -> Any:
    said = argument(keyword, name)
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise OptionsError(f"{said}: expected pkg.mod:factory, e.g. nets.unet:UNet3d")
    _search_here()
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise OptionsError(
            f"{said}: cannot be imported from {os.getcwd()}: {type(error).__name__}: {error}"
        ) from error
    return _built(said, found, arguments, cls)


def import_registrations(names: Iterable[str]) -> None:
    """Import modules that register rules and handlers; the current folder is on the path.

    Raises:
        OptionsError: some cannot be imported; all of them are listed.
    """
    _search_here()
    problems = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
    if problems:
        raise OptionsError.listing(
            f"{argument('imports')}: cannot be imported from {os.getcwd()}:", problems
        )


def _search_here() -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _built(said: str, found: Any, arguments: Mapping[str, Any], cls: type[Any]) -> Any:
    if isinstance(found, cls):
        return found
    if not callable(found):
        raise OptionsError(f"{said}: expected a class or function, got {found!r}")
    try:
        model = found(**arguments)
    except Exception as error:
        raise OptionsError(
            f"{said}: calling it with {dict(arguments) or 'no arguments'} failed: "
            f"{type(error).__name__}: {error}\n"
            "Write a function without arguments that builds your model, or give "
            f"{argument('model_args')}."
        ) from error
    if not isinstance(model, cls):
        package = cls.__module__.partition(".")[0]
        raise OptionsError(f"{said}: expected a {package}.nn.Module, got a {type(model).__name__}")
    return model
