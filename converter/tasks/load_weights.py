"""Load a PyTorch checkpoint into an MLX model written by hand: its layers say the layout.

Needs torch only to read what ``torch.save`` wrote.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn

from mlxport.converter.checkpoint.formats.in_memory import checkpoint_of
from mlxport.converter.checkpoint.formats.mapped import Reader
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.plan.tensor import cast, to_mlx
from mlxport.converter.tasks.fit_target import Loaded, fit_target


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping[str, Any],
    reading: SourceOptions,
    *,
    strict: bool,
) -> Loaded:
    """Load PyTorch's weights into an MLX model; see ``mlxport.load_weights``."""
    checkpoint = reading.without_dropped(checkpoint_of(source, reading.key))
    fit = fit_target(model, checkpoint, reading.rename, reading.prefix)
    if strict:
        fit.require("Nothing was loaded. strict=False loads what fits and returns the rest.")
    arrays, rounded = [], []
    with Reader(checkpoint.mapped) as read:
        for entry in dict.fromkeys(fit.entries.values()):
            tensors = entry.apply(tuple(read(checkpoint.tensors[k]) for k in entry.sources))
            for name, tensor in zip(entry.targets, tensors, strict=True):
                if tensor.dtype == "F64":
                    tensor = cast(tensor, "F32")
                    rounded.append(name)
                arrays.append((name, to_mlx(tensor)))
    checkpoint.check_unchanged()
    if rounded:
        message = f"float64 became float32, as MLX computes in that: {', '.join(rounded)}"
        warnings.warn(message, UserWarning, stacklevel=3)
    model.load_weights(arrays, strict=False)
    return fit.result
