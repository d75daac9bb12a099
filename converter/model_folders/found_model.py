"""What is found in a folder that describes its model: how to build it, call it and open its axes.

Needs no torch.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlxport.converter.arguments import argument
from mlxport.converter.errors import CheckpointError, ConversionError
from mlxport.converter.plan.json_data import read_json

if TYPE_CHECKING:
    from mlxport.converter.graph.capture.dynamic import DynamicAxes
    from mlxport.converter.torch_model.factory import Factory

_logger = logging.getLogger(__name__)

# What describes a model in a folder of the Hugging Face Hub.
CONFIG = "config.json"


@dataclass(frozen=True)
class FoundModel:
    """A model that a folder describes.

    Attributes:
        checkpoint: the file or folder with its weights.
        description: the file that describes it.
        factory: builds the torch model, without its weights.
        inputs: example inputs in order, as texts that `Spec.parse` reads.
        tensors: further example inputs by name, whose values matter.
        kwargs: arguments of ``forward`` that are no inputs.
        dynamic: ways to open axes, the one that opens most first, as ``convert`` takes them; the
            model is converted by the first that it can be captured with, or else at fixed sizes.
        opened: what each of these ways opens, in words.
        architecture: equal for models whose weights alone differ; empty where that is not known.
        key: where in a nested checkpoint the state dict is; None where there is one only.
        beside: name of a file -> JSON data to be written beside the weights.
        remarks: what else was understood, in a few words each.
        without_cache: the same model without a cache, in case that it cannot be captured with one;
            None where it has none.
    """

    checkpoint: Path
    description: Path
    factory: Factory
    inputs: tuple[str, ...] = ()
    tensors: Mapping[str, Any] = field(default_factory=dict)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    dynamic: tuple[DynamicAxes, ...] = ()
    opened: tuple[str, ...] = ()
    architecture: str = ""
    key: str | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    without_cache: FoundModel | None = None

    @property
    def plain(self) -> FoundModel:
        """The model without a cache."""
        return self.without_cache or self

    @property
    def example(self) -> str:
        """The example inputs, in one line."""
        named = (f"{n}=int64:{','.join(map(str, t.shape))}" for n, t in self.tensors.items())
        return " ".join((*self.inputs, *named))

    def summary(self, *more: str) -> str:
        """Return what was understood, in one line, with more that there is to say."""
        return "; ".join((f"{self.factory.name}, by {self.description.name}", *self.remarks, *more))


Recogniser = Callable[[Path], Mapping[str, FoundModel]]


def read_description(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file that describes a model.

    Raises:
        CheckpointError: it cannot be read, or holds something else.
    """
    try:
        data = read_json(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except ConversionError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data


def is_class_of(value: Any, base: Any) -> bool:
    """Tell whether a value is a class that derives from another."""
    return inspect.isclass(value) and issubclass(value, base)


def by_hand(source: Path) -> str:
    """Return the shortest command that converts what cannot be built by its description."""
    model, inputs = argument("model", "pkg.mod:factory"), argument("inputs", ["1,3,64,64"])
    return f"Or name a function of yours that builds it: {model} {inputs} for {source}."


def library(package: str, extra: str, described: str, source: Path) -> ModuleType:
    """Import the library that builds a model.

    Args:
        package: its name.
        extra: the extra of mlxport that installs it.
        described: what it is to build.
        source: where that is described.

    Raises:
        CheckpointError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or not package.startswith(error.name):
            raise _not_imported(package, described, source, error) from error
        raise CheckpointError(
            f"{source} holds {described}, which {package} builds, and {package} is not installed: "
            f"pip install 'mlxport[{extra}]'. {by_hand(source)}"
        ) from error
    except Exception as error:  # whatever importing a library runs
        raise _not_imported(package, described, source, error) from error


def built(described: str, source: Path, build: Callable[[], Any]) -> Any:
    """Return what a library builds of its own description.

    Raises:
        CheckpointError: it cannot.
    """
    try:
        return build()
    except ConversionError:
        raise
    except Exception as error:  # a library's, of what is in the description
        _logger.info("%s cannot be built", described, exc_info=True)
        reason = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
        raise CheckpointError(
            f"{source}: {described} cannot be built by it: {reason}. {by_hand(source)}"
        ) from error


def _not_imported(package: str, described: str, source: Path, error: Exception) -> CheckpointError:
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    return CheckpointError(
        f"{source} holds {described}, which {package} builds, and {package} cannot be imported: "
        f"{reason}. {by_hand(source)}"
    )
