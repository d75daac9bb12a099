"""Make a checkpoint of a state dict that is in memory already.

Needs torch only for torch's tensors.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.errors import ConversionError, OptionsError, StateDictError
from mlxport.converter.plan.loading import is_extra_state
from mlxport.converter.plan.tensor import STORAGE, Tensor

# numpy's dtypes; where two stand for one storage, the first is meant
_NUMPY: dict[np.dtype[Any], str] = {}
for _name, _storage in STORAGE.items():
    _NUMPY.setdefault(_storage, _name)


def checkpoint_of(source: str | Path | Mapping[str, Any], key: str | None = None) -> Checkpoint:
    """Return a file's checkpoint, or that of a state dict: torch tensors or numpy arrays.

    Extra state of modules may be anything.

    Raises:
        ConversionError: as ``open_checkpoint``, or entries are no tensors; all are listed.
    """
    if not isinstance(source, Mapping):
        return open_checkpoint(source, key)
    if key is not None:
        raise OptionsError(f"key {key!r} was given for a state dict; give what is under it")
    tensors: dict[str, Tensor] = {}
    storage: dict[str, Hashable] = {}
    others: dict[str, Any] = {}
    problems = []
    for name, value in source.items():
        try:
            tensors[name] = _tensor(value)
        except ConversionError as error:
            if is_extra_state(name):
                others[name] = value
                continue
            problems.append(f"{printable(name)}: {error}")
            continue
        address = tensors[name].bits.__array_interface__["data"][0]
        whole = tensors[name].bits.size > 0
        storage[name] = (address, tensors[name].dtype, *tensors[name].shape) if whole else name
    if problems:
        raise StateDictError.listing("these entries of the state dict cannot be read:", problems)
    metadata = getattr(source, "_metadata", None)
    noted = dict(metadata) if isinstance(metadata, Mapping) else None
    return Checkpoint(Path("state_dict"), tensors, storage, others=others, metadata=noted)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype not in _NUMPY:
            raise StateDictError(f"numpy's {value.dtype} has no name in the safetensors format")
        return Tensor(value, _NUMPY[value.dtype])
    if any(cls.__module__ == "torch" for cls in type(value).__mro__):
        from mlxport.converter.plan.torch_tensor import tensor_from_torch

        return tensor_from_torch(value)
    raise StateDictError(f"expected a torch tensor or a numpy array, got {type(value).__name__}")
