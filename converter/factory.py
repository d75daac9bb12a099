"""Import what a user names on the command line: a model, ``pkg.mod:factory``, and extensions."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any

import torch

from mlxport.converter.errors import OptionsError
from mlxport.converter.timings import stage


@stage("model")
def make_model(name: str, arguments: dict[str, Any] | None = None) -> torch.nn.Module:
    """Import ``pkg.mod:factory`` and return the model it gives.

    Args:
        name: an importable module and, after the colon, a class or function that gives a
            ``torch.nn.Module`` (or such a module itself). The current folder is on the path.
        arguments: keyword arguments for the factory.

    Raises:
        OptionsError: it does not import, or gives something else.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise OptionsError(f"--model {name}: expected pkg.mod:factory, e.g. nets.unet:UNet3d")
    _search_here()
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise OptionsError(
            f"--model {name}: cannot be imported from {os.getcwd()}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return _built(name, found, arguments or {})


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
        raise OptionsError.listing(f"--import: cannot be imported from {os.getcwd()}:", problems)


def _search_here() -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _built(name: str, found: Any, arguments: dict[str, Any]) -> torch.nn.Module:
    if isinstance(found, torch.nn.Module):
        return found
    if not callable(found):
        raise OptionsError(f"--model {name}: expected a class or function, got {found!r}")
    try:
        model = found(**arguments)
    except Exception as error:
        raise OptionsError(
            f"--model {name}: calling it with {arguments or 'no arguments'} failed: "
            f"{type(error).__name__}: {error}\n"
            "Write a function without arguments that builds your model, or give --model-args."
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise OptionsError(
            f"--model {name}: expected a torch.nn.Module, got a {type(model).__name__}"
        )
    return model
