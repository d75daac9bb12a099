"""Run a ``model.py``: the only way to build a live model, from memory or from a folder.

What the user reads is what runs. The emitted source imports the layers beside it; in memory those
are mlxport's, of which the files beside a written ``model.py`` are copies.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mlxport.converter.errors import ConversionError
from mlxport.converter.timings import stage

# The package that an output folder is while its model.py is imported.
_PACKAGE = "mlxport_model"


def load_source(
    source: str, files: tuple[str, ...], user_files: Mapping[str, str] | None = None
) -> ModuleType:
    """Execute the source of a model, with mlxport's layers.

    Args:
        source: the text of ``model.py``.
        files: the files of ``mlxport.layers`` it imports from.
        user_files: name -> text of the user's files it imports from, as they go into ``layers/``.
    """
    families = {file.partition(".")[0] for file in files}
    layers = {name: import_module(f"mlxport.layers.{name}") for name in (*families, *files)}
    package, below = _package(), f"{_PACKAGE}.layers"
    modules = {_PACKAGE: package, below: ModuleType(below)}
    with _modules(modules | {f"{below}.{name}": module for name, module in layers.items()}):
        for name, text in (user_files or {}).items():
            sys.modules[f"{below}.{name}"] = _run(ModuleType(f"{below}.{name}"), below, text)
        return _run(ModuleType(_PACKAGE), _PACKAGE, source, "model.py")


def _package(*path: str) -> ModuleType:
    package = ModuleType(_PACKAGE)
    package.__path__ = [*path]
    return package


def _run(module: ModuleType, package: str, source: str, file: str = "") -> ModuleType:
    module.__package__ = package
    module.__file__ = file or module.__name__.replace(".", "/") + ".py"
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return module


def load_folder(folder: str | Path) -> ModuleType:
    """Import the ``model.py`` of an output folder with the layers beside it.

    Its text is what runs: compiled code that lies beside it is neither read nor written.

    Raises:
        ConversionError: there is no ``model.py``, it cannot be imported, or it ends the process.
    """
    path = Path(folder).resolve() / "model.py"
    if not path.is_file():
        raise ConversionError(
            f"{folder}: there is no model.py. Give a folder that `mlxport convert` wrote."
        )
    spec = importlib.util.spec_from_file_location(f"{_PACKAGE}.model", path)
    if spec is None:
        raise ConversionError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    package = {_PACKAGE: _package(str(path.parent))}
    # on the path, for what older versions wrote: that imports its layers as `layers`
    with _modules(package), _on_path(path.parent), _without_caches(), not_ending(path):
        try:
            exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
        except Exception as error:  # the file may hold anything
            raise ConversionError(
                f"{path} cannot be imported: {type(error).__name__}: {error}"
            ) from error
    return module


@stage("load")
def live_model(folder: str | Path) -> Any:
    """Return the model of an output folder with its weights, in eval mode.

    Raises:
        ConversionError: as for `load_folder`; the weights or the settings in ``config.json`` do
            not fit ``model.py``.
    """
    load = getattr(load_folder(folder), "load", None)
    if not callable(load):
        raise ConversionError(
            f"{Path(folder) / 'model.py'} has no function load, as every one that mlxport wrote has"
        )
    with not_ending(Path(folder) / "model.py"):
        try:
            return load(Path(folder))
        except Exception as error:  # whatever MLX raises of weights or settings that do not fit
            raise ConversionError(
                f"{folder}: model.py cannot load its weights: {type(error).__name__}: {error}"
            ) from error


@contextmanager
def not_ending(file: Path) -> Iterator[None]:
    """Run code of an output folder: where it would end the process quietly, say that it did.

    Raises:
        ConversionError: it raised ``SystemExit``.
    """
    try:
        yield
    except SystemExit as error:
        raise ConversionError(
            f"{file} ends the process (SystemExit: {error.code}), which no model.py of mlxport's "
            "does. Read it before it runs again."
        ) from error


@contextmanager
def _modules(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Let these modules be imported, and leave no trace of them nor of what they import."""

    def take() -> dict[str, ModuleType]:
        names = [n for n in sys.modules if n.partition(".")[0] in (_PACKAGE, "layers")]
        return {name: sys.modules.pop(name) for name in names}

    before = take()
    sys.modules.update(modules)
    try:
        yield
    finally:
        take()
        sys.modules.update(before)


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def _without_caches() -> Iterator[None]:
    """Let imports run the sources alone: a ``.pyc`` may hold other code than the file beside it."""
    before = sys.pycache_prefix, sys.dont_write_bytecode
    sys.pycache_prefix, sys.dont_write_bytecode = os.path.join(os.devnull, "none"), True
    try:
        yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = before
