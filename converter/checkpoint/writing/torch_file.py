"""Write what ``torch.save`` writes: a state dict in which tied tensors share their memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from mlxport.converter.checkpoint.writing.atomic import atomic_file
from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.torch_tensor import tensor_to_torch


def write_torch(
    path: Path,
    tensors: Iterable[tuple[str, Tensor]],
    ties: Mapping[str, str],
    order: Iterable[str] = (),
) -> None:
    """Write tensors as a state dict, to a file that appears whole or not at all.

    Args:
        path: the file; one that stands there is replaced in one step.
        tensors: pairs of key and tensor; all are in memory until the end.
        ties: key -> the key of the tensor it is another name of; that may be missing.
        order: keys in the order they are to stand in; others follow.

    Raises:
        CheckpointError: the file cannot be written.
    """
    converted = {key: tensor_to_torch(tensor) for key, tensor in tensors if key not in ties}
    converted.update({key: converted[other] for key, other in ties.items() if other in converted})
    state = {key: converted[key] for key in order if key in converted}
    try:
        with atomic_file(path) as file:
            torch.save(state | converted, file)
    except (OSError, RuntimeError) as error:  # torch raises the latter on a full disk
        raise CheckpointError(f"{path}: cannot be written: {error}") from error
