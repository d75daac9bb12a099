"""Metadata of modules and values beside the tensors of a checkpoint, to hand on or to compare.

Needs torch only for torch's tensors.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.plan.tensor import Tensor

_logger = logging.getLogger(__name__)

_PLAIN = (bool, int, float, complex, str, bytes)


def module_paths(keys: Mapping[str, str]) -> dict[str, str]:
    """Return path of a module under one naming -> under another, of the modules that keys name.

    Args:
        keys: key under the one -> under the other.
    """
    found: dict[str, str] = {}
    for one, other in keys.items():
        ours, theirs = one.split(".")[:-1], other.split(".")[:-1]
        found.setdefault(".".join(ours), ".".join(theirs))
        while ours and theirs and ours[-1] == theirs[-1]:
            ours, theirs = ours[:-1], theirs[:-1]
            found.setdefault(".".join(ours), ".".join(theirs))
    return found


def translated(path: str, paths: Mapping[str, str]) -> str:
    """Return the other name of a module, by its own or by that of the nearest one above."""
    above, below = path, ""
    while above and above not in paths:
        above, _, last = above.rpartition(".")
        below = f"{last}.{below}" if below else last
    return ".".join(part for part in (paths.get(above, above), below) if part)


def metadata_text(checkpoint: Checkpoint, path: str) -> str:
    """Return what a checkpoint notes of a module, as JSON text; ``"null"`` where nothing."""
    noted = (checkpoint.metadata or {}).get(path)
    known = None if noted is None else {str(key): value for key, value in noted.items()}
    return json.dumps(known, sort_keys=True, default=repr)


def digest_of_value(value: Any) -> str:
    """Return a digest of a value of a checkpoint, of a tensor as of anything else.

    Empty where it holds objects of classes that are not known: such a value is none other's equal.
    """
    digest = hashlib.sha256()
    try:
        _add(digest, value)
    except TypeError as error:
        _logger.debug("a value has no digest: %s", error)
        return ""
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    kind = type(value)
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Tensor):
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value.bits).tobytes())
    elif value is None or kind in _PLAIN:
        digest.update(f"{kind.__name__} {value!r};".encode(errors="surrogatepass"))
    elif isinstance(value, dict):
        _add(digest, sorted(map(_digest_of_item, value.items())))
    elif isinstance(value, (list, tuple)):
        digest.update(f"{len(value)} ".encode())
        for item in value:
            _add(digest, item)
    elif isinstance(value, (set, frozenset)):
        _add(digest, sorted(map(_digest_of_item, value)))
    elif kind.__module__ == "torch" or any(c.__module__ == "torch" for c in kind.__mro__):
        _add_of_torch(digest, value)
    else:
        raise TypeError(f"{kind.__name__} has no digest")


def _digest_of_item(item: Any) -> str:
    """Return the digest of an item of a container whose order says nothing.

    Raises:
        TypeError: it has none.
    """
    if not (digest := digest_of_value(item)):
        raise TypeError("an item has no digest")
    return digest


def _add_of_torch(digest: Any, value: Any) -> None:
    import torch

    from mlxport.converter.errors import StateDictError
    from mlxport.converter.plan.torch_tensor import tensor_from_torch

    if not isinstance(value, torch.Tensor):
        digest.update(repr(value).encode())  # a dtype, a device, a size
        return
    try:
        _add(digest, tensor_from_torch(value))
    except StateDictError as error:
        raise TypeError(str(error)) from error
