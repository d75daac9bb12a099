"""The beginning of every conversion of a model: open the checkpoint, make the model, load it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.keys.bind import FLOATS
from mlxport.converter.checkpoint.keys.rename import Patterns, renamed
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE
from mlxport.converter.tasks.load_into_model import load_into_model
from mlxport.converter.torch_model.factory import make_model


@dataclass(frozen=True)
class LoadedModel:
    """A torch model with a checkpoint's weights.

    Attributes:
        model: in the dtype that was asked for.
        checkpoint: under its new names.
        keys: model key -> key of ``checkpoint``.
        own: key of ``checkpoint`` -> the file's own, where keys were renamed.
        warnings: what the user should look into.
    """

    model: torch.nn.Module
    checkpoint: Checkpoint
    keys: Mapping[str, str]
    own: Mapping[str, str]
    warnings: tuple[str, ...]


def load_model(
    source: str | Path,
    model: str | torch.nn.Module,
    *,
    model_args: Mapping[str, Any] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    rename: Patterns | None = None,
    dtype: str | None = None,
    allow_lossy_cast: bool = False,
) -> LoadedModel:
    """Return the model with the checkpoint's weights; arguments as ``mlxport.convert_checkpoint``.

    Raises:
        ConversionError: the checkpoint cannot be read, the model not be made, or they do not fit.
    """
    checkpoint, own = renamed(open_checkpoint(Path(source), key), rename or {})
    made = make_model(model, dict(model_args or {})) if isinstance(model, str) else model
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        lossy = allow_lossy_cast or dtype is not None
        keys = load_into_model(made, checkpoint, prefix=prefix, allow_lossy_cast=lossy)
    if dtype is not None:
        made.to(TORCH_DTYPE[FLOATS[dtype]])
    return LoadedModel(made, checkpoint, keys, own, tuple(str(w.message) for w in caught))
