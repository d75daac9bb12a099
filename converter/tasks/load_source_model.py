"""Load the torch model to convert: open the checkpoint, build the model, load its weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.keys.bind import FLOATS
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE
from mlxport.converter.tasks.load_into_model import load_into_model
from mlxport.converter.torch_model.factory import make_model
from mlxport.converter.torch_model.model_kinds import as_torch_module


@dataclass(frozen=True)
class LoadedModel:
    """A torch model with a checkpoint's weights.

    Attributes:
        model: in the dtype that was asked for.
        checkpoint: under its new names.
        keys: model key -> key of ``checkpoint``.
        original_keys: key of ``checkpoint`` -> that in the file, where keys were renamed.
        warnings: what the user should look into.
    """

    model: torch.nn.Module
    checkpoint: Checkpoint
    keys: Mapping[str, str]
    original_keys: Mapping[str, str]
    warnings: tuple[str, ...]


def load_model(
    source: str | Path,
    model: str | torch.nn.Module,
    reading: SourceOptions,
) -> LoadedModel:
    """Return the model with the checkpoint's weights.

    Args:
        source: the checkpoint.
        model: the torch model, changed in place, or ``pkg.mod:factory`` that gives it.
        reading: how the checkpoint is read.

    Raises:
        ConversionError: the checkpoint cannot be read, the model not be built, or they do not fit.
    """
    checkpoint, original_keys = reading.open(Path(source))
    torch_model = (
        make_model(model, dict(reading.model_args))
        if isinstance(model, str)
        else as_torch_module(model)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        lossy = reading.allow_lossy_cast or reading.dtype is not None
        keys = load_into_model(
            torch_model, checkpoint, prefix=reading.prefix, allow_lossy_cast=lossy
        )
    if reading.dtype is not None:
        torch_model.to(TORCH_DTYPE[FLOATS[reading.dtype]])
    found = tuple(str(warning.message) for warning in caught)
    return LoadedModel(torch_model, checkpoint, keys, original_keys, found)
