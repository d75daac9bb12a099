"""Read what ``torch.save`` wrote before PyTorch 1.6, its values left on disk; nothing of it runs.

``torch.load`` reads such a file into memory as a whole. Four pickles come first, the second last
of them the object; then the storages in the order the last one gives, each as its number of
elements and their bytes (``torch.serialization._legacy_save``).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.serialization import StorageType
from torch.storage import TypedStorage

from mlxport.converter.checkpoint.formats.inert_pickle import InertPickle

_COUNT = struct.Struct("<q")


def load_legacy(path: Path, module: InertPickle) -> Any:
    """Return the object in a file; its tensors lie in the mapped file.

    Raises:
        Exception: whatever torch and pickle raise on a damaged file.
    """
    size = path.stat().st_size
    mapped: Any = torch.UntypedStorage.from_file(str(path), False, size)
    with path.open("rb") as file:
        for _ in range(3):  # a number that marks the format, its version, the writer's machine
            _Reader(file, module, mapped, {}).load()
        start = file.tell()
        first = _Reader(file, module, mapped, None)
        first.load()
        keys = _Reader(file, module, mapped, {}).load()
        offsets = _offsets(keys, first.found, file, size)
        file.seek(start)
        return _Reader(file, module, mapped, offsets).load()


def _offsets(
    keys: Any, found: dict[str, tuple[int, int]], file: BinaryIO, size: int
) -> dict[str, int]:
    """Return key -> where the bytes of its storage begin, having checked that they are there."""
    if not isinstance(keys, list) or set(keys) != set(found) or len(keys) != len(found):
        raise ValueError("the storages that follow are not those of the object")
    offsets = {}
    at = file.tell()
    for key in keys:
        count, nbytes = found[key]
        file.seek(at)
        (claimed,) = _COUNT.unpack(file.read(_COUNT.size))
        offsets[key] = at + _COUNT.size
        at = offsets[key] + nbytes
        if claimed != count or at > size:
            raise ValueError(f"storage {key!r} should have {count} elements, has {claimed}")
    return offsets


class _Reader:
    """Unpickles one object of a file; without offsets it only finds out what storages there are."""

    def __init__(
        self,
        file: BinaryIO,
        module: InertPickle,
        mapped: Any,
        offsets: dict[str, int] | None,
    ) -> None:
        self.found: dict[str, tuple[int, int]] = {}
        self._storages: dict[str, TypedStorage] = {}
        self._mapped, self._offsets = mapped, offsets

        class Unpickler(module.Unpickler):  # type: ignore[name-defined, misc]
            def find_class(self, name: str, attribute: str) -> Any:
                if name == "torch" and attribute.endswith("Storage"):
                    return StorageType(attribute)
                return super().find_class(name, attribute)

        self._unpickler = Unpickler(file, errors="surrogateescape")
        self._unpickler.persistent_load = self._storage

    def load(self) -> Any:
        return self._unpickler.load()

    def _storage(self, pid: Any) -> TypedStorage:
        _, kind, key, _, count, *view = pid
        if type(count) is not int or count < 0 or (view and view[0] is not None):
            raise ValueError("a storage that is part of another, or of no size")
        nbytes = count * kind.dtype.itemsize
        if self.found.setdefault(key, (count, nbytes)) != (count, nbytes):
            raise ValueError(f"storage {key!r} has two sizes")
        if key not in self._storages:
            start = 0 if self._offsets is None else self._offsets[key]
            if start + nbytes > self._mapped.nbytes():
                raise ValueError(f"storage {key!r} is longer than the file")
            part = self._mapped[start : start + nbytes]
            self._storages[key] = TypedStorage(wrap_storage=part, dtype=kind.dtype, _internal=True)
        return self._storages[key]
